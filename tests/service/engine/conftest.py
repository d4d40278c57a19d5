"""What tests of the engine have in common: the kernels in C, of every width that this CPU has."""

from pathlib import Path

import pytest

from service.engine.cpu import kernels


@pytest.fixture(params=native.files() or [None], ids=lambda path: path and path.stem)
def kernels(request: pytest.FixtureRequest) -> native.Kernels:
    """Return each width in turn; ATEN_CPU_CAPABILITY narrows them."""
    path: Path | None = request.param
    if path is None:
        pytest.skip("there are no kernels in C for this CPU")
    if not path.exists():
        pytest.skip("the kernels are not compiled (make setup, with a C compiler)")
    return native.load(path)
