"""Memory and utilisation of a GPU, from NVIDIA's management library (NVML).

Not its duty: when to read, and what becomes of it (`service.telemetry.gpu`).
"""

from collections.abc import Callable
from typing import Any

from service.telemetry.gpu import GpuUnreadableError, GpuUsage


def uuid_of(device: str) -> str:
    """Return a GPU's UUID, which is its own whatever the processes that use it can see.

    Torch counts the GPUs that CUDA_VISIBLE_DEVICES leaves, NVML all of them.

    Args:
        device: As torch calls it, e.g. "cuda:0"; CUDA is in use by this process already then.

    Returns:
        The UUID; empty where the device is no GPU.
    """
    if not device.startswith("cuda"):
        return ""
    # Here: a process that reads what another one computes on needs no torch.
    import torch

    return str(torch.cuda.get_device_properties(device).uuid)


def open_nvml(uuid: str) -> Callable[[], GpuUsage]:
    """Find a GPU; from any thread, also of a process that does not use it.

    Args:
        uuid: What `uuid_of` says.

    Returns:
        Reads it, in about a millisecond; raises GpuUnreadableError where the driver fails.

    Raises:
        GpuUnreadableError: The library or the driver is not there, or does not know the GPU.
    """
    # Here: neither the supervisor nor a process on a CPU needs it.
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        raise GpuUnreadableError("nvidia-ml-py is not installed") from None
    try:
        pynvml.nvmlInit()
        handle = _find(pynvml, uuid)
    except pynvml.NVMLError as error:
        raise GpuUnreadableError(f"NVML: {error}") from None
    return lambda: _read(pynvml, handle)


def _find(pynvml: Any, uuid: str) -> Any:
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError_NotFound:
        return pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")


def _read(pynvml: Any, handle: Any) -> GpuUsage:
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        busy = _busy(pynvml, handle)
    except pynvml.NVMLError as error:
        raise GpuUnreadableError(f"NVML: {error}") from None
    return GpuUsage(memory.used, memory.total, busy)


def _busy(pynvml: Any, handle: Any) -> float | None:
    try:
        return float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100.0
    except pynvml.NVMLError_NotSupported:
        return None
