"""Metrics of several processes, aggregated.

Each process keeps its values in files of a folder in memory, as prometheus_client does if
`PROMETHEUS_MULTIPROC_DIR` is set when a process starts. Any process can export the sum. A process
that replaces a dead one continues its counters: no counter ever falls, and no file is left over.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable from which prometheus_client, when imported, takes the folder."""

# Files of a process, with space for every series that labels can create, and a margin.
_COUNTED = ("counter", "histogram")
_FILE_BYTES = dict.fromkeys(_COUNTED, 1 << 19) | {
    "gauge_livemax": 1 << 16,
    "gauge_livemostrecent": 1 << 16,
    "gauge_livesum": 1 << 16,
}


class Processes(Protocol):
    """The processes whose metrics are aggregated."""

    @property
    def folder(self) -> Path:
        """The folder of their files."""

    def processes(self) -> Mapping[int, int]:
        """Return the process id of each live process, by its slot number."""

    def name(self, number: int) -> str:
        """Return the name of a process: "worker-0", "engine-0"."""


def prepare_metric_files(folder: Path, number: int) -> None:
    """Create the files of this process; called before it declares a metric.

    Args:
        folder: Of the files; `FOLDER_VARIABLE` names it in this process's environment.
        number: This process's slot. The counts of the slot's last process are continued.

    Raises:
        OSError: There is no space for the files.
    """
    for kind, size in _FILE_BYTES.items():
        path = folder / f"{kind}_{os.getpid()}.db"
        if kind in _COUNTED and (inherited := _inherited_path(folder, kind, number)).exists():
            inherited.rename(path)
        else:
            # Named when it is whole: a scrape in another process fails at an empty file.
            new = folder / f"{kind}_{number}.new"
            _allocate(new, size)
            new.rename(path)


def _allocate(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # The library would create sparse files; the kernel kills a process that writes to a hole
        # when the disk is full.
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def retire_metrics(folder: Path, number: int, process: int) -> None:
    """Drop the gauges of a dead process, and keep its counts for the next one in its slot.

    Args:
        folder: Of its files.
        number: Its slot.
        process: Its process id.
    """
    cast(Callable[..., None], mark_process_dead)(process, str(folder))
    for kind in _COUNTED:
        path = folder / f"{kind}_{process}.db"
        if path.exists():
            path.rename(_inherited_path(folder, kind, number))


def aggregate_registry(processes: Processes) -> CollectorRegistry:
    """Return a registry that exports the sums over all processes, and figures of each process."""
    registry = CollectorRegistry()
    registry.register(_MetricSums(processes.folder))
    registry.register(_ProcessMetrics(processes))
    PlatformCollector(registry=registry)
    return registry


def _inherited_path(folder: Path, kind: str, number: int) -> Path:
    return folder / f"{kind}_inherited_path-{number}.db"


class _MetricSums(Collector):
    """Exports the sum of all files."""

    def __init__(self, folder: Path) -> None:
        self._collector = cast(Callable[..., Any], MultiProcessCollector)(None, str(folder))

    def collect(self) -> Iterable[Metric]:
        while True:
            try:
                return cast(Iterable[Metric], self._collector.collect())
            except FileNotFoundError:  # renamed meanwhile, because a process was replaced
                continue


class _ProcessMetrics(Collector):
    """Exports CPU, memory and files of each process; label `worker`: "0", "engine-0"."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for number, process in self._processes.processes().items():
            name = self._processes.name(number).removeprefix("worker-")
            for metric in _collect(process):
                family = families.setdefault(
                    metric.name, Metric(metric.name, metric.documentation, metric.type)
                )
                for sample in metric.samples:
                    family.add_sample(sample.name, {"worker": name}, sample.value)
        return families.values()


def _collect(process: int) -> Iterable[Metric]:
    return ProcessCollector(pid=lambda: process, registry=None).collect()
