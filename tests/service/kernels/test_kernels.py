"""Tests of `service.kernels`: the library, where it is and where it is not."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from service import kernels

pytestmark = pytest.mark.cpu

FOLDER = Path(kernels.__file__).parent
# All that is called, but not how wide it is.
OTHERWISE_WHOLE = (
    "int winograd_scratch, winograd, im2col_scratch, im2col, attend_scratch, attend, sample;"
)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    kernels.kernels.cache_clear()
    yield
    kernels.kernels.cache_clear()


def compile_to(folder: Path, compiler: str | None = None) -> str:
    environment = {"PATH": "/usr/bin:/bin"} | ({} if compiler is None else {"CC": compiler})
    done = subprocess.run(
        ["sh", str(FOLDER / "compile.sh"), str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)")
@pytest.mark.skipif(
    "avx2" not in torch.cpu.get_capabilities(), reason="this is no x86-64 processor"
)
def test_it_compiles_without_a_warning(tmp_path: Path) -> None:
    assert compile_to(tmp_path) == ""
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ["libkernels-avx2.so", "libkernels-avx512.so"]


def test_without_a_compiler_it_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    for name in ("libkernels.so", "libkernels-avx2.so", "libkernels-avx512.so"):
        (tmp_path / name).touch()  # of an older source
    assert "the network will take twice as long" in compile_to(tmp_path, "no-such-compiler")
    assert list(tmp_path.iterdir()) == []


def test_each_says_how_wide_it_is(kernels: kernels.Kernels) -> None:
    assert (kernels.lanes, kernels.panel) in ((8, 16), (16, 32))


@pytest.fixture
def on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> Callable[[str], None]:
    """Return what makes a CPU of this one, its kernels to lie in `tmp_path`."""
    monkeypatch.setattr(kernels, "FOLDER", tmp_path)
    caplog.set_level("INFO")

    def has(capability: str) -> None:
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)

    return has


def test_the_widest_that_torch_would_use_are_taken(
    on_a_cpu: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(kernels, "load", lambda path: loaded.append(path.name))
    for capability, expected in (
        ("AVX512", ["libkernels-avx512.so"]),
        ("AVX2", ["libkernels-avx2.so"]),
        ("DEFAULT", []),
    ):
        on_a_cpu(capability)
        kernels.kernels.cache_clear()
        kernels.kernels()
        assert loaded == expected
        loaded.clear()


def test_where_they_are_missing_a_line_says_what_to_do(
    on_a_cpu: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    on_a_cpu("AVX2")
    assert kernels.kernels() is None
    assert kernels.kernels() is None
    assert caplog.text.count("libkernels-avx2.so: cannot open shared object file") == 1
    assert "make serve" in caplog.text


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)")
@pytest.mark.parametrize("source", ["", "int winograd_scratch;", OTHERWISE_WHOLE])
def test_those_of_older_source_or_none_at_all_are_done_without(
    source: str,
    on_a_cpu: Callable[[str], None],
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    old = tmp_path / "libkernels-avx2.so"
    if source:
        command = ["cc", "-shared", "-o", str(old), "-xc", "-"]
        subprocess.run(command, input=source, text=True, check=True)
    else:
        old.write_bytes(b"of another system")
    on_a_cpu("AVX2")
    assert kernels.kernels() is None
    assert "libkernels-avx2.so" in caplog.text


def test_where_the_widest_fail_the_next_are_taken(
    on_a_cpu: Callable[[str], None], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    path = FOLDER / "libkernels-avx2.so"
    if "avx2" not in torch.cpu.get_capabilities() or not path.exists():
        pytest.skip("no kernels for AVX2 on this CPU")
    (tmp_path / "libkernels-avx512.so").write_bytes(b"cut off")
    shutil.copy(path, tmp_path)
    on_a_cpu("AVX512")
    found = kernels.kernels()
    assert found is not None
    assert found.lanes == 8
    assert "libkernels-avx512.so: file too short" in caplog.text
    assert caplog.messages[-1] == "the network's kernels in C are those of libkernels-avx2.so"


@pytest.mark.parametrize("capability", ["DEFAULT", "NO AVX", "VSX"])
def test_other_cpus_go_without_them_and_say_so(
    capability: str, on_a_cpu: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    on_a_cpu(capability)
    assert kernels.kernels() is None
    (said,) = caplog.messages
    assert "without kernels in C" in said
