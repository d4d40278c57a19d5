"""Metrics of several worker processes, shown as one.

Each worker keeps its figures in files of the service's private folder, named by its slot: whoever
takes a dead worker's place counts on from there, so that no counter ever falls and no file is
left over. Any worker shows the sum. Not its duty: which metrics there are
(`service.telemetry.metrics`).
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from service.server.registry import WorkerRegistry, WorkerSlot

# Room for every series that labels can make, with a margin.
_FILE_BYTES = {
    "counter": 1 << 19,
    "histogram": 1 << 19,
    "gauge_livemax": 1 << 16,
    "gauge_livemostrecent": 1 << 16,
    "gauge_livesum": 1 << 16,
}


def keep_in(worker_slot: WorkerSlot) -> None:
    """Have all metrics that this process makes from now on kept in the workers's folder.

    Once, before the first of them: the library knows this per process, not per registry.

    Args:
        worker_slot: Of this process.

    Raises:
        OSError: There is no room for the files.
    """
    folder = worker_slot.workers.folder
    for kind, size in _FILE_BYTES.items():
        descriptor = os.open(
            folder / f"{kind}_{worker_slot.slot}.db", os.O_RDWR | os.O_CREAT, 0o600
        )
        try:
            # The library would leave holes in them, and the kernel end a process that writes to
            # one when the disk is full.
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    make = cast(Callable[..., Any], values.MultiProcessValue)  # the library tells no types of it
    values.ValueClass = make(lambda: worker_slot.slot)


def forget(folder: Path, slot: int) -> None:
    """Drop what a dead worker said of its present; what it counted stays."""
    cast(Callable[..., None], mark_process_dead)(slot, str(folder))


def registry_of_all(workers: WorkerRegistry) -> CollectorRegistry:
    """Return a registry that shows what all workers recorded, and their processes."""
    registry = CollectorRegistry()
    cast(Callable[..., Collector], MultiProcessCollector)(registry, str(workers.folder))
    registry.register(_Processes(workers))
    PlatformCollector(registry=registry)
    return registry


class _Processes(Collector):
    """The usual figures of each process, told apart by the label `worker`: "0", "engine-0"."""

    def __init__(self, workers: WorkerRegistry) -> None:
        self._workers = workers

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for slot, process in self._workers.processes().items():
            name = self._workers.title(slot).removeprefix("worker-")
            for metric in _figures(process):
                family = families.setdefault(
                    metric.name, Metric(metric.name, metric.documentation, metric.type)
                )
                for sample in metric.samples:
                    family.add_sample(sample.name, {"worker": name}, sample.value)
        return families.values()


def _figures(process: int) -> Iterable[Metric]:
    return ProcessCollector(pid=lambda: process, registry=None).collect()
