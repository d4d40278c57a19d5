"""Tests of `service.telemetry.nvml`: with a stand-in for NVIDIA's library, and the real one."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from service.telemetry.gpu import GpuUnreadableError, GpuUsage
from service.telemetry.nvml import device_uuid, open_nvml

UUID = "11111111-2222-3333-4444-555555555555"


class FakeNvml(ModuleType):
    """As much of `pynvml` as is used, around one GPU or a part of one."""

    class NVMLError(Exception):
        pass

    NVMLError_NotFound = type("NVMLError_NotFound", (NVMLError,), {})
    NVMLError_NotSupported = type("NVMLError_NotSupported", (NVMLError,), {})

    def __init__(self, name: str) -> None:
        super().__init__("pynvml")
        self._name = name
        self.no_driver = self.lost = False

    def nvmlInit(self) -> None:
        if self.no_driver:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != self._name:
            raise self.NVMLError_NotFound("Not Found")
        return uuid

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        if self.lost:
            raise self.NVMLError("GPU is lost")
        return SimpleNamespace(used=3 << 30, total=80 << 30, free=77 << 30)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> SimpleNamespace:
        if handle.startswith("MIG"):
            raise self.NVMLError_NotSupported("Not Supported")
        return SimpleNamespace(gpu=25, memory=7)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    nvml = FakeNvml(f"GPU-{UUID}")
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    return nvml


def test_a_gpu_is_known_by_its_uuid_and_a_cpu_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"cuda:1": SimpleNamespace(uuid=UUID)}
    monkeypatch.setattr(torch.cuda, "get_device_properties", found.__getitem__)
    assert device_uuid("cuda:1") == UUID
    assert device_uuid("cpu") == ""


def test_memory_and_share_of_time(gpu: FakeNvml) -> None:
    assert open_nvml(UUID)() == GpuUsage(3 << 30, 80 << 30, 0.25)


def test_a_part_of_a_gpu_tells_its_memory_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(f"MIG-{UUID}"))
    assert open_nvml(UUID)() == GpuUsage(3 << 30, 80 << 30, None)


def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(GpuUnreadableError, match="nvidia-ml-py is not installed"):
        open_nvml(UUID)


def test_no_driver(gpu: FakeNvml) -> None:
    gpu.no_driver = True
    with pytest.raises(GpuUnreadableError, match="NVML: Driver Not Loaded"):
        open_nvml(UUID)


def test_a_gpu_that_the_driver_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml("GPU-of-another-host"))
    with pytest.raises(GpuUnreadableError, match="NVML: Not Found"):
        open_nvml(UUID)


def test_a_gpu_that_is_lost(gpu: FakeNvml) -> None:
    read = open_nvml(UUID)
    gpu.lost = True
    with pytest.raises(GpuUnreadableError, match="NVML: GPU is lost"):
        read()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_the_real_library_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pynvml")
    with pytest.raises(GpuUnreadableError, match="NVML: "):
        open_nvml(UUID)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this host")
def test_the_real_gpu() -> None:
    size = 256 << 20
    read = open_nvml(device_uuid("cuda:0"))
    before = read()
    held = torch.zeros(size, dtype=torch.uint8, device="cuda:0")
    torch.cuda.synchronize()
    after = read()
    assert after.used_bytes >= before.used_bytes + size
    assert len(held) == size
    assert after.total_bytes == before.total_bytes
    assert after.total_bytes >= torch.cuda.get_device_properties(0).total_memory
    assert after.utilization_ratio is None or 0.0 <= after.utilization_ratio <= 1.0
