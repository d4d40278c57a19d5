import subprocess
import sys
from typing import Any

import pytest
import torch

from training.machine import machine

pytestmark = pytest.mark.cpu


def test_alone_on_the_cpu() -> None:
    with machine("cpu", threads=1) as here:
        assert here.leads
        assert here.world == 1
        assert torch.get_num_threads() == 1
        assert not here.compiles


def test_deterministic_kernels_last_as_long_as_the_machine() -> None:
    with machine("cpu", threads=1, deterministic=True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_missing_gpu_is_named() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device on this host")
    with pytest.raises(ValueError, match="sees no CUDA device"), machine("cuda"):
        pass


def test_a_cuda_graph_without_cuda_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="CUDA graph on one CUDA device only"),
        machine("cpu", threads=1, graphs=True),
    ):
        pass


@pytest.mark.gpu
def test_cuda_trains_in_bfloat16_channels_last() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this host")
    with machine("auto") as here:
        assert here.device.type == "cuda"
        assert here.bfloat16
        assert here.memory_format == torch.channels_last


@pytest.mark.parametrize("capabilities", [{}, {"avx2": True}, {"avx512_bf16": False}])
def test_a_cpu_without_bfloat16_trains_in_float32(
    capabilities: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    with machine("cpu", threads=1) as here:
        assert not here.bfloat16


PROGRAM = """
import torch
from training.machine import machine
torch.cpu.get_capabilities = lambda: {"avx512_bf16": True}
with machine("cpu", threads=1) as here:
    print(here.bfloat16)
"""


def test_what_torch_may_not_use_is_not_used_and_a_line_says_so() -> None:
    """On a CPU with bfloat16, told to do without; any other one only claims to have it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PATH": "/usr/bin:/bin", "ONEDNN_MAX_CPU_ISA": "AVX2"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "False\n"
    (line,) = done.stderr.strip().splitlines()
    assert "float32 is used" in line
