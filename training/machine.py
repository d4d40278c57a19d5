"""The machine of a run: its device, precision and processes.

Several processes that torchrun has started train one network together (PyTorch DDP).
"""

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machine:
    """Where this process computes.

    Attributes:
        device: A CUDA device, or the CPU.
        rank: The number of this process, from 0.
        world: How many processes there are.
        bfloat16: Whether steps run in bfloat16 autocast.
        compiles: Whether steps are compiled by torch.compile.
        graphs: Whether steps are recorded as a CUDA graph and replayed.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    bfloat16: bool = False
    compiles: bool = False
    graphs: bool = False

    @property
    def leads(self) -> bool:
        """Whether this process evaluates, saves and prints."""
        return self.rank == 0

    @property
    def memory_format(self) -> torch.memory_format:
        """The fastest memory layout of images and kernels on this device.

        On a CPU with AVX512-BF16, a training step in bfloat16 was measured 14 % slower with
        channels last than with channels first.
        """
        return torch.channels_last if self.device.type == "cuda" else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """Return the context for a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)


@contextlib.contextmanager
def machine(
    device: str = "auto",
    threads: int | None = None,
    *,
    compiles: bool | None = None,
    graphs: bool = False,
    deterministic: bool = False,
) -> Iterator[Machine]:
    """Prepare this process for training, and leave its process group afterwards.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads of this process; None shares all cores among the processes.
        compiles: Whether to compile steps; None means on CUDA only. (On a CPU it was measured to
            save 7 % of a step, after a minute of compiling at every start.)
        graphs: Whether to replay steps as a CUDA graph.
        deterministic: Whether to use deterministic kernels on CUDA, where they exist. A CPU's
            kernels are always deterministic.

    Yields:
        The machine.

    Raises:
        ValueError: CUDA is not available; or `graphs` on a CPU or with several processes.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but torch sees no CUDA device; use cpu")
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    chosen = torch.device(device)
    if graphs and (chosen.type != "cuda" or world > 1):
        raise ValueError("a step becomes a CUDA graph on one CUDA device only, in one process")
    torch.set_num_threads(threads or max(1, (os.cpu_count() or 1) // world))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if deterministic:
        # Only a warning, since `grid_sample` has no deterministic gradient on CUDA.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False
    if world > 1:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    if compiles is None:
        compiles = chosen.type == "cuda"
    try:
        yield Machine(chosen, rank, world, _bfloat16_pays(chosen), compiles, graphs)
    finally:
        torch.use_deterministic_algorithms(False)
        if world > 1:
            dist.destroy_process_group()


def _bfloat16_pays(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in hardware; emulation is far slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Measured on a CPU with AVX512-BF16: steps twice as fast as float32.
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if not (capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")):
        return False
    # ONEDNN_MAX_CPU_ISA may forbid oneDNN to use it. Emulation then takes twenty times as long.
    if emulated := _seconds(torch.bfloat16) > 3 * _seconds(torch.float32):
        _log.warning("this CPU multiplies bfloat16, but torch does not use it: float32 is used")
    return not emulated


def _seconds(dtype: torch.dtype) -> float:
    """Return the shortest measured time of a small convolution."""
    images, weight = torch.zeros(4, 64, 24, 24, dtype=dtype), torch.zeros(64, 64, 3, 3, dtype=dtype)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        torch.conv2d(images, weight, padding=1)
        times.append(time.perf_counter() - began)
    return min(times)
