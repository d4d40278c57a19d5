"""Which engines are processes of their own: told from the settings, the same in every process.

Not its duty: starting them (`service.server.supervisor`), looking for a GPU that torch can use
(`service.engine.torch_engine`).
"""

from pathlib import Path

from service.config import Settings

# What the driver shows of any GPU, also to a container; the second is Windows' under Linux.
_GPU_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


def engine_devices(settings: Settings) -> tuple[str, ...]:
    """Return the device of each engine that is a process of its own.

    Args:
        settings: The operator's. `auto` shares an engine where several workers would use one
            GPU: a context each costs memory, and their batches would not run together.

    Returns:
        As `FER_DEVICE` names them; none where every worker has its own.
    """
    devices = settings.devices
    if settings.engine == "auto":
        several = settings.workers > 1 or len(devices) > 1
        shared = several and _is_gpu(devices[0])
    else:
        shared = settings.engine == "shared"
    return devices if shared else ()


def _is_gpu(device: str) -> bool:
    # Without torch, which a supervisor does not load. Where it is wrong, because torch cannot use
    # the GPU, the service works all the same.
    return device.startswith("cuda") or (
        device == "auto" and any(path.exists() for path in _GPU_FILES)
    )
