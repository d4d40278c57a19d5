"""The topology: how many workers there are, and which engines run as separate processes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from service.config import Settings
from service.host import count_cores, find_memory_bytes

_MIB = 1 << 20
# Measured at rest: a worker with a network of its own, one before a shared engine, such an engine.
_OWN_ENGINE_BYTES = 400 * _MIB
_BEFORE_ENGINE_BYTES = 230 * _MIB
_SHARED_ENGINE_BYTES = 1300 * _MIB
# With one a worker, two workers on two cores answer a sixth fewer photographs from 8 connections.
_LEAST_THREADS = 2
_SMALL_PICTURE_BYTES = 16 * _MIB  # of each decoding thread, and of one more

# Device files of the GPU driver, visible in containers too; the second is that of WSL.
GPU_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


def fit_to_host(
    settings: Settings, cores: int | None = None, memory_bytes: int | None = None
) -> Settings:
    """Return the settings with the numbers of workers and of decoding threads chosen.

    What was set stays. Else there are as many workers as cores, if there is memory for what each
    may hold at most. Their decoding threads share the cores; each worker has two or more.

    Args:
        settings: The operator's.
        cores: Of the host; None counts those that this process may use.
        memory_bytes: Of the host; None finds what this process may use.
    """
    cores = cores or count_cores()
    workers = settings.workers
    if workers is None:
        left = (memory_bytes or find_memory_bytes()) - engine_bytes(settings)
        workers = max(1, min(cores, left // worker_bytes(settings)))
    threads = settings.decode_threads or max(_LEAST_THREADS, cores // workers)
    return replace(settings, workers=workers, decode_threads=threads)


def worker_bytes(settings: Settings) -> int:
    """Return the memory that a worker takes at most, in bytes.

    Args:
        settings: The operator's.
    """
    rest = _BEFORE_ENGINE_BYTES if _shares_engine(settings) else _OWN_ENGINE_BYTES
    small = _SMALL_PICTURE_BYTES * ((settings.decode_threads or _LEAST_THREADS) + 1)
    return rest + settings.max_buffered_bytes + settings.max_decode_bytes + small


def engine_bytes(settings: Settings) -> int:
    """Return the memory that the shared engine processes take together, in bytes.

    Args:
        settings: The operator's.
    """
    return _SHARED_ENGINE_BYTES * len(settings.devices) if _shares_engine(settings) else 0


def engine_devices(settings: Settings, gpu_files: Sequence[Path] = GPU_FILES) -> tuple[str, ...]:
    """Return the device of each engine process.

    Args:
        settings: The operator's. `auto` shares an engine if several workers would use one GPU: a
            CUDA context for each costs memory, and their batches would not run together.
        gpu_files: One of them exists if the host has a GPU.

    Returns:
        As `FER_DEVICE` names them; empty if every worker has its own engine.
    """
    return settings.devices if _shares_engine(settings, gpu_files) else ()


def _shares_engine(settings: Settings, gpu_files: Sequence[Path] = GPU_FILES) -> bool:
    if settings.engine != "auto":
        return settings.engine == "shared"
    several = settings.workers is None or settings.workers > 1 or len(settings.devices) > 1
    return several and _is_gpu(settings.devices[0], gpu_files)


def _is_gpu(device: str, gpu_files: Sequence[Path]) -> bool:
    # Without torch, which a supervisor does not load. If torch cannot use the GPU, the service
    # still works.
    return device.startswith("cuda") or (
        device == "auto" and any(path.exists() for path in gpu_files)
    )
