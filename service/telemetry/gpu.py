"""Metrics of the GPU: memory and utilisation.

A separate thread reads the driver every two seconds, so that a hanging driver never blocks a
scrape. A reading older than `STALE_S` is not exported. Workers share one GPU: the worker that
answers a scrape exports its own reading, and nothing is summed.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

READ_EVERY_S = 2.0
STALE_S = 15.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GpuUsage:
    """One reading.

    Attributes:
        used_bytes: Memory in use by all processes.
        total_bytes: Memory of the GPU.
        utilization_ratio: Share of the driver's last period in which a kernel ran, 0 to 1; None
            where the driver does not report it, as for a part of a GPU (MIG).
    """

    used_bytes: int
    total_bytes: int
    utilization_ratio: float | None


class GpuUnreadableError(Exception):
    """The GPU cannot be read, or not any more; the message says why."""


class GpuMetrics(Collector):
    """Exports the last reading as metrics; none without a GPU. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without a reading.

        Args:
            clock: Seconds.
        """
        self._clock = clock
        self._last: tuple[str, GpuUsage, float] | None = None

    def show(self, device: str, usage: GpuUsage) -> None:
        """Store a reading; it is exported until it is stale.

        Args:
            device: The value of the label, e.g. "cuda:0".
            usage: The reading.
        """
        self._last = device, usage, self._clock()

    def collect(self) -> Iterable[Metric]:
        """Return the metric families; they have no samples without a fresh reading."""
        used = _gauge("fer_gpu_memory_used_bytes", "Memory of the GPU that is in use.")
        total = _gauge("fer_gpu_memory_total_bytes", "Memory of the GPU.")
        busy = _gauge("fer_gpu_utilization_ratio", "Share of time that the GPU computes, 0 to 1.")
        last = self._last
        if last is not None and self._clock() - last[2] <= STALE_S:
            device, usage, _ = last
            used.add_metric((device,), usage.used_bytes)
            total.add_metric((device,), usage.total_bytes)
            if usage.utilization_ratio is not None:
                busy.add_metric((device,), usage.utilization_ratio)
        return used, total, busy


class GpuMonitor:
    """The thread that reads the GPU."""

    def __init__(
        self,
        figures: GpuMetrics,
        device: str,
        open_reader: Callable[[str], Callable[[], GpuUsage]],
        every_s: float = READ_EVERY_S,
    ) -> None:
        """Create the thread without starting it.

        Args:
            figures: Receives each reading.
            device: Which GPU, as torch calls it.
            open_reader: Opens the device and returns a function that reads it. Both run in the
                thread, and may raise `GpuUnreadableError`, which ends the thread.
            every_s: Seconds between two readings.
        """
        self._figures, self._device = figures, device
        self._open_reader, self._every_s = open_reader, every_s
        self._stopped = threading.Event()
        # A daemon: a hanging driver must not keep the process from exiting.
        self.thread = threading.Thread(target=self._run, name="gpu", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self.thread.start()

    def stop(self) -> None:
        """Ask the thread to stop, without waiting for it."""
        self._stopped.set()

    def _run(self) -> None:
        try:
            read = self._open_reader(self._device)
            while not self._stopped.is_set():
                self._figures.show(self._device, read())
                self._stopped.wait(self._every_s)
        except GpuUnreadableError as error:
            _log.warning("metrics are without those of %s: %s", self._device, error)


def _gauge(name: str, documentation: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, labels=("device",))
