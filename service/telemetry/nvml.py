"""Memory and utilisation of a GPU, from NVIDIA's management library (NVML)."""

from collections.abc import Callable
from typing import Any

from service.telemetry.gpu import GpuUnreadableError, GpuUsage


def device_uuid(device: str) -> str:
    """Return a GPU's UUID, which identifies it in every process.

    Torch numbers only the GPUs in CUDA_VISIBLE_DEVICES, NVML numbers all of them.

    Args:
        device: As torch calls it, e.g. "cuda:0"; this process must use CUDA already.

    Returns:
        The UUID; empty if the device is not a GPU.
    """
    if not device.startswith("cuda"):
        return ""
    # Imported here: a process that only reads the GPU of another process needs no torch.
    import torch

    return str(torch.cuda.get_device_properties(device).uuid)


def open_nvml(uuid: str) -> Callable[[], GpuUsage]:
    """Open a GPU for reading; from any thread, also in a process that does not use the GPU.

    Args:
        uuid: As `device_uuid` returns it.

    Returns:
        A function that reads the GPU in about a millisecond; it raises GpuUnreadableError if the
        driver fails.

    Raises:
        GpuUnreadableError: The library or the driver is missing, or does not know the GPU.
    """
    # Imported here: neither the supervisor nor a process on a CPU needs it.
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
