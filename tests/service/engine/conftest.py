"""What tests of the engine have in common: the kernels in C, of every width that this CPU has."""

from pathlib import Path

import pytest

from service.engine.cpu.kernels import Kernels, files, load


@pytest.fixture(params=files() or [None], ids=lambda path: path and path.stem)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    path: Path | None = request.param
    if path is None:
        pytest.skip("there are no kernels in C for this CPU")
    if not path.exists():
        pytest.skip("the kernels are not compiled (make setup, with a C compiler)")
    return load(path)
