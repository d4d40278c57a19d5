"""The topology: which engines run as separate processes, derived from the settings alone."""

from collections.abc import Sequence
from pathlib import Path

from service.config import Settings

# Device files of the GPU driver, visible in containers too; the second is that of WSL.
GPU_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


def engine_devices(settings: Settings, gpu_files: Sequence[Path] = GPU_FILES) -> tuple[str, ...]:
    """Return the device of each engine process.

    Args:
        settings: The operator's. `auto` shares an engine if several workers would use one GPU: a
            CUDA context for each costs memory, and their batches would not run together.
        gpu_files: One of them exists if the host has a GPU.

    Returns:
        As `FER_DEVICE` names them; empty if every worker has its own engine.
    """
    devices = settings.devices
    if settings.engine == "auto":
        several = settings.workers > 1 or len(devices) > 1
        shared = several and _is_gpu(devices[0], gpu_files)
    else:
        shared = settings.engine == "shared"
    return devices if shared else ()


def _is_gpu(device: str, gpu_files: Sequence[Path]) -> bool:
    # Without torch, which a supervisor does not load. If torch cannot use the GPU, the service
    # still works.
    return device.startswith("cuda") or (
        device == "auto" and any(path.exists() for path in gpu_files)
    )
