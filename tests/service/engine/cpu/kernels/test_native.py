"""Tests of `service.engine.cpu.kernels`: the library, where it is and where it is not."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from service.engine.cpu import kernels

FOLDER = Path(kernels.__file__).parent


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    kernels.library.cache_clear()
    yield
    kernels.library.cache_clear()


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


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)")
@pytest.mark.skipif(
    "avx2" not in torch.cpu.get_capabilities(), reason="this is no x86-64 processor"
)
def test_it_compiles_without_a_warning(tmp_path: Path) -> None:
    assert compile_to(tmp_path) == ""
    assert [file.name for file in tmp_path.iterdir()] == ["libkernels.so"]


def test_without_a_compiler_it_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "libkernels.so").touch()  # of an older source
    assert "the network will take twice as long" in compile_to(tmp_path, "no-such-compiler")
    assert list(tmp_path.iterdir()) == []


def test_where_it_is_missing_a_line_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "fma3": True})
    monkeypatch.setattr(kernels, "_LIBRARY", tmp_path / "libkernels.so")
    assert kernels.library() is None
    assert kernels.library() is None
    assert caplog.text.count("libkernels.so: cannot open shared object file") == 1
    assert "make serve" in caplog.text


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)")
@pytest.mark.parametrize("source", ["", "int winograd_scratch;"])
def test_one_of_older_source_or_none_at_all_is_done_without(
    source: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    old = tmp_path / "libkernels.so"
    if source:
        command = ["cc", "-shared", "-o", str(old), "-xc", "-"]
        subprocess.run(command, input=source, text=True, check=True)
    else:
        old.write_bytes(b"of another system")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "fma3": True})
    monkeypatch.setattr(kernels, "_LIBRARY", old)
    assert kernels.library() is None
    assert "libkernels.so" in caplog.text


@pytest.mark.parametrize("capabilities", [{"avx2": True}, {"architecture": "aarch64"}])
def test_other_cpus_go_without_it_and_without_a_word(
    capabilities: dict[str, object],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert kernels.library() is None
    assert caplog.text == ""


def test_only_wider_cpus_compute_wider(monkeypatch: pytest.MonkeyPatch) -> None:
    for capabilities, expected in (
        ({"avx2": True, "avx512_f": True}, True),
        ({"avx2": True, "avx512_f": False}, False),
        ({"architecture": "aarch64"}, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert kernels.computes_wider() is expected
