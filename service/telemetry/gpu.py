"""What the GPU is doing, among the metrics.

A thread of its own reads it every two seconds, so that no scrape waits for a driver that hangs;
what was not read lately is not shown. Workers share one GPU, and the one that answers a scrape
shows what it read itself: nothing is summed. Not its duty: asking the driver
(`service.telemetry.nvml`).
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
        used_bytes: Memory in use, by whomever.
        total_bytes: Memory that there is.
        utilization_ratio: Share of the driver's last period in which anything ran, 0 to 1; None
            where it does not tell, as of a part of a GPU (MIG).
    """

    used_bytes: int
    total_bytes: int
    utilization_ratio: float | None


class GpuUnreadableError(Exception):
    """There is nothing to read, or no more; the message says why."""


class GpuFigures(Collector):
    """The last reading as metrics; none where there is no GPU. Any thread may use it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Show nothing yet.

        Args:
            clock: Seconds.
        """
        self._clock = clock
        self._last: tuple[str, GpuUsage, float] | None = None

    def show(self, device: str, usage: GpuUsage) -> None:
        """Show this from now on, until it is old.

        Args:
            device: The value of the label, e.g. "cuda:0".
            usage: Of this moment.
        """
        self._last = device, usage, self._clock()

    def collect(self) -> Iterable[Metric]:
        """Return the families, with a sample each or, without a fresh reading, none."""
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


class GpuWatch:
    """The thread that reads."""

    def __init__(
        self,
        figures: GpuFigures,
        device: str,
        open_reader: Callable[[str], Callable[[], GpuUsage]],
        every_s: float = READ_EVERY_S,
    ) -> None:
        """Start nothing yet.

        Args:
            figures: Told of each reading.
            device: Which GPU, as torch calls it.
            open_reader: Finds the device and returns what reads it; either may raise
                `GpuUnreadableError`, which ends the reading. Called in the thread.
            every_s: Seconds between two readings.
        """
        self._figures, self._device = figures, device
        self._open_reader, self._every_s = open_reader, every_s
        self._stopped = threading.Event()
        # Ends with the process: a driver that hangs must not keep it.
        self.thread = threading.Thread(target=self._run, name="gpu", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self.thread.start()

    def stop(self) -> None:
        """Read no more; waits for nothing."""
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
