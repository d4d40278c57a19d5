"""Tests of `service.telemetry.gpu`: what a scrape shows of the GPU, and for how long."""

import threading
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

import service.app
from service.telemetry.gpu import STALE_S, GpuMetrics, GpuMonitor, GpuUnreadableError, GpuUsage
from service.telemetry.metrics import Metrics
from tests.service.serving import FakeEngine, serving

pytestmark = pytest.mark.anyio

USAGE = GpuUsage(3 << 30, 80 << 30, 0.25)
NAMES = {
    "fer_gpu_memory_used_bytes": 3.0 * 2**30,
    "fer_gpu_memory_total_bytes": 80.0 * 2**30,
    "fer_gpu_utilization_ratio": 0.25,
}


def shown(registry: CollectorRegistry, device: str = "cuda:0") -> dict[str, float | None]:
    return {name: registry.get_sample_value(name, {"device": device}) for name in NAMES}


def test_nothing_is_shown_without_a_reading(metrics: Metrics) -> None:
    families = {f.name: f.samples for f in metrics.registry.collect() if f.name in NAMES}
    assert families == {name: [] for name in NAMES}


def test_a_reading_is_shown_until_it_is_old() -> None:
    now = [100.0]
    figures = GpuMetrics(lambda: now[0])
    registry = CollectorRegistry()
    registry.register(figures)
    figures.show("cuda:0", USAGE)
    now[0] += STALE_S
    assert shown(registry) == NAMES
    now[0] += 0.1
    assert shown(registry) == dict.fromkeys(NAMES)


def test_what_the_driver_does_not_tell_is_left_out(metrics: Metrics) -> None:
    metrics.gpu.show("cuda:1", GpuUsage(1, 2, None))
    assert shown(metrics.registry, "cuda:1") == {
        "fer_gpu_memory_used_bytes": 1,
        "fer_gpu_memory_total_bytes": 2,
        "fer_gpu_utilization_ratio": None,
    }


def test_workers_show_their_own_and_no_sum() -> None:
    # As with several workers: what a scrape sees is another registry than what is recorded on.
    recorded, seen = CollectorRegistry(), CollectorRegistry()
    Metrics(recorded, seen).gpu.show("cuda:0", USAGE)
    assert shown(seen) == NAMES
    assert shown(recorded) == dict.fromkeys(NAMES)


class FakeReader:
    """Counts its readings, and fails at the last of those that it has."""

    def __init__(self, readings: int) -> None:
        self._left = readings
        self.devices: list[str] = []
        self.read = 0

    def open(self, device: str) -> Callable[[], GpuUsage]:
        self.devices.append(device)
        return self._read

    def _read(self) -> GpuUsage:
        self.read += 1
        if self.read > self._left:
            raise GpuUnreadableError("NVML: GPU is lost")
        return GpuUsage(self.read, 10, 0.5)


def test_it_reads_until_the_driver_fails_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    figures, reader = GpuMetrics(), FakeReader(3)
    watch = GpuMonitor(figures, "cuda:1", reader.open, every_s=0.0)
    watch.start()
    watch.thread.join(30)
    assert not watch.thread.is_alive()
    assert (reader.devices, reader.read) == (["cuda:1"], 4)
    used = next(iter(figures.collect()))
    assert [sample.value for sample in used.samples] == [3]
    assert caplog.messages == ["metrics are without those of cuda:1: NVML: GPU is lost"]


def test_without_a_library_it_ends_at_once(caplog: pytest.LogCaptureFixture) -> None:
    def fail(device: str) -> Callable[[], GpuUsage]:
        raise GpuUnreadableError("nvidia-ml-py is not installed")

    watch = GpuMonitor(GpuMetrics(), "cuda:0", fail)
    watch.start()
    watch.thread.join(30)
    assert not watch.thread.is_alive()
    assert caplog.messages == ["metrics are without those of cuda:0: nvidia-ml-py is not installed"]


def test_it_stops_when_told_between_readings() -> None:
    watch = GpuMonitor(GpuMetrics(), "cuda:0", FakeReader(10**9).open, every_s=3600.0)
    watch.start()
    watch.stop()
    watch.thread.join(30)
    assert not watch.thread.is_alive()


# Wired into the service.


class CudaEngine(FakeEngine):
    device = "cuda:0"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    opened: list[str] = []

    def open_fake(uuid: str) -> Callable[[], GpuUsage]:
        opened.append(uuid)
        return lambda: USAGE

    def device_uuid(device: str) -> str:
        return f"of {device}" if device.startswith("cuda") else ""

    monkeypatch.setattr(service.app, "open_nvml", open_fake)
    monkeypatch.setattr(service.app, "device_uuid", device_uuid)
    return opened


async def test_on_cuda_a_scrape_shows_it(
    opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = threading.Event()
    show = GpuMetrics.show

    def told(figures: GpuMetrics, device: str, usage: GpuUsage) -> None:
        show(figures, device, usage)
        read.set()

    monkeypatch.setattr(GpuMetrics, "show", told)
    async with serving(CudaEngine()) as (client, _):
        assert read.wait(30)
        text = (await client.get("/metrics")).text
    assert 'fer_gpu_utilization_ratio{device="cuda:0"} 0.25' in text
    assert opened == ["of cuda:0"]


async def test_on_a_cpu_nobody_looks_for_one(opened: list[str]) -> None:
    async with serving() as (client, _):
        text = (await client.get("/metrics")).text
    assert "# TYPE fer_gpu_utilization_ratio gauge" in text
    assert "fer_gpu_utilization_ratio{" not in text
    assert opened == []
