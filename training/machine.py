"""The machine a run is on: its device, its precision, its share of the processes.

Started by torchrun, several processes train one network together (PyTorch DDP); alone, one does.
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
        device: Its CUDA device, or the CPU.
        rank: Its number among the processes, from 0.
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
        """The layout of images and kernels that is fastest here.

        On a CPU with AVX512-BF16, a training step in bfloat16 was measured 14 % slower with
        channels last than with channels first.
        """
        return torch.channels_last if self.device.type == "cuda" else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """Return the context that a forward pass runs in."""
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
    """Set this process up to train, and leave its process group afterwards.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads of this process; None for one a core, shared among the processes.
        compiles: Whether to compile steps; None for where it pays: on CUDA. (On a CPU it was
            measured to save 7 % of a step, after a minute of compiling at every start.)
        graphs: Whether to replay steps as a CUDA graph.
        deterministic: Whether to use deterministic kernels wherever there are any; a CPU's are.

    Yields:
        The machine.

    Raises:
        ValueError: CUDA was asked for and is not there; or graphs, without it or in several
            processes.
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
        # Sampling has no deterministic gradient on CUDA: warned of, not refused.
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
    """Tell whether the device multiplies bfloat16 in hardware; in software it is far slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Measured on a CPU with AVX512-BF16: steps twice as fast as float32.
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if not (capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")):
        return False
    # The CPU may and oneDNN may not: ONEDNN_MAX_CPU_ISA. It computes then, twenty times as slowly.
    if emulated := _seconds(torch.bfloat16) > 3 * _seconds(torch.float32):
        _log.warning("this CPU multiplies bfloat16, but torch does not use it: float32 is used")
    return not emulated


def _seconds(dtype: torch.dtype) -> float:
    """Return the least time of a small convolution."""
    images, weight = torch.zeros(4, 64, 24, 24, dtype=dtype), torch.zeros(64, 64, 3, 3, dtype=dtype)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        torch.conv2d(images, weight, padding=1)
        times.append(time.perf_counter() - began)
    return min(times)
