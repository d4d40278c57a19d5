"""Metrics of several processes, shown as one.

Each process keeps its figures in files of a folder in memory, as prometheus_client does where
`PROMETHEUS_MULTIPROC_DIR` is set when a process starts, and any of them shows the sum. A process
that takes a dead one's place counts on from its figures: no counter ever falls, and no file is
left over.
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
"""What tells prometheus_client, as it is imported, where a process keeps its figures."""

# Files of a process, and room for every series that labels can make, with a margin.
_COUNTED = ("counter", "histogram")
_FILE_BYTES = dict.fromkeys(_COUNTED, 1 << 19) | {
    "gauge_livemax": 1 << 16,
    "gauge_livemostrecent": 1 << 16,
    "gauge_livesum": 1 << 16,
}


class Processes(Protocol):
    """The processes whose figures are shown."""

    @property
    def folder(self) -> Path:
        """Where their files are."""

    def processes(self) -> Mapping[int, int]:
        """Return the process id of each that lives, by its number."""

    def title(self, number: int) -> str:
        """Return what a process is called: "worker-0", "engine-0"."""


def keep_metrics(folder: Path, number: int) -> None:
    """Prepare the files of this process; before its first metric.

    Args:
        folder: Where they are; `FOLDER_VARIABLE` names it in this process's environment.
        number: This process's place, whose last holder's counts are taken over.

    Raises:
        OSError: There is no room for the files.
    """
    for kind, size in _FILE_BYTES.items():
        path = folder / f"{kind}_{os.getpid()}.db"
        if kind in _COUNTED and (left := _left(folder, kind, number)).exists():
            left.rename(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # The library would leave holes in them, and the kernel end a process that writes to
            # one when the disk is full.
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)


def leave_metrics(folder: Path, number: int, process: int) -> None:
    """Drop what a dead process said of its present, and leave what it counted to the next one.

    Args:
        folder: Where its files are.
        number: Its place.
        process: Its process id.
    """
    cast(Callable[..., None], mark_process_dead)(process, str(folder))
    for kind in _COUNTED:
        path = folder / f"{kind}_{process}.db"
        if path.exists():
            path.rename(_left(folder, kind, number))


def registry_of_all(processes: Processes) -> CollectorRegistry:
    """Return a registry that shows what all processes recorded, and their own figures."""
    registry = CollectorRegistry()
    registry.register(_Recorded(processes.folder))
    registry.register(_ProcessFigures(processes))
    PlatformCollector(registry=registry)
    return registry


def _left(folder: Path, kind: str, number: int) -> Path:
    return folder / f"{kind}_left-{number}.db"


class _Recorded(Collector):
    """The sum of all files."""

    def __init__(self, folder: Path) -> None:
        self._collector = cast(Callable[..., Any], MultiProcessCollector)(None, str(folder))

    def collect(self) -> Iterable[Metric]:
        while True:
            try:
                return cast(Iterable[Metric], self._collector.collect())
            except FileNotFoundError:  # renamed meanwhile, as a process took another's place
                continue


class _ProcessFigures(Collector):
    """The usual figures of each process, told apart by the label `worker`: "0", "engine-0"."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for number, process in self._processes.processes().items():
            name = self._processes.title(number).removeprefix("worker-")
            for metric in _figures(process):
                family = families.setdefault(
                    metric.name, Metric(metric.name, metric.documentation, metric.type)
                )
                for sample in metric.samples:
                    family.add_sample(sample.name, {"worker": name}, sample.value)
        return families.values()


def _figures(process: int) -> Iterable[Metric]:
    return ProcessCollector(pid=lambda: process, registry=None).collect()
