"""What the processes of one service know of each other: who lives and who is well.

A file in shared memory with a record for each worker, and for each engine that is a process of its
own, written by that process about once a second, wiped by the supervisor when it died; of a worker
also how many connections it has. Behind the records: when any of them last had too much to do.
Times are of the monotonic clock, which all processes of a host share. Not its duty: starting them
(`service.server.supervisor`), counting (`service.telemetry.metrics`).
"""

import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from service.config import Settings, SettingsError
from service.server.topology import engine_devices
from service.telemetry.shared_metrics import prepare_metric_files

REPORT_EVERY_S = 1.0
STALE_S = 5.0
"""A worker that has not reported for so long is not well: its event loop does not turn."""

_RECORD = struct.Struct("qdd")  # process id, when it last reported, when it last was well
_HELD = struct.Struct("q")  # behind it: connections
_SIZE = _RECORD.size + _HELD.size
_OVERLOAD = struct.Struct("d")


class WorkerRegistry:
    """The records of all processes; any of them that has the folder may open it.

    Attributes:
        folder: Where the records are, the figures and the engines' sockets.
        slots: The workers' places.
        engine_slots: Those of the engines, behind them.
    """

    def __init__(self, folder: Path, workers: int, engines: int = 0) -> None:
        """Open the records, making an empty file where there is none.

        Args:
            folder: Private to the service, best in memory.
            workers: How many there are.
            engines: How many of them are processes of their own.

        Raises:
            OSError: There is no room for the file.
        """
        self.folder = folder
        self.slots = range(workers)
        self.engine_slots = range(workers, workers + engines)
        size = (workers + engines) * _SIZE + _OVERLOAD.size
        descriptor = os.open(folder / "workers", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Room now, or an error now: without it the kernel would end whoever writes later.
            os.posix_fallocate(descriptor, 0, size)
            self._memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)

    def socket_of(self, slot: int) -> Path:
        """Return where the engine `slot` listens."""
        return self.folder / f"{self.title(slot)}.socket"

    def title(self, slot: int) -> str:
        """Return what a process is called: "worker-1", "engine-0"."""
        if slot in self.engine_slots:
            return f"engine-{slot - self.engine_slots.start}"
        return f"worker-{slot}"

    def report(self, slot: int, well: bool) -> None:
        """Say that this process, of `slot`, lives, and whether it takes traffic."""
        now = time.monotonic()
        self._write(slot, os.getpid(), now, now if well else 0.0)

    def wipe(self, slot: int) -> None:
        """Forget the process of `slot`, which is gone."""
        self._write(slot, 0, 0.0, 0.0)
        self.hold(slot, 0)

    def well(self, slot: int) -> bool:
        """Whether the process of `slot` takes traffic, as far as is known."""
        return time.monotonic() - self._read(slot)[2] <= STALE_S

    def hold(self, slot: int, connections: int) -> None:
        """Say how many connections the worker of `slot` has."""
        start = slot * _SIZE + _RECORD.size
        self._memory[start : start + _HELD.size] = _HELD.pack(connections)

    def held(self, slot: int) -> int:
        """Return how many it has, as it said last."""
        connections: int = _HELD.unpack_from(self._memory, slot * _SIZE + _RECORD.size)[0]
        return connections

    def signal_overload(self) -> None:
        """Say that a worker has refused somebody, because there is too much to do."""
        self._memory[-_OVERLOAD.size :] = _OVERLOAD.pack(time.monotonic())

    def overloaded_s_ago(self) -> float:
        """Return how long ago that was, in seconds; very long where it never was."""
        last: float = _OVERLOAD.unpack_from(self._memory, len(self._memory) - _OVERLOAD.size)[0]
        return time.monotonic() - last if last else float("inf")

    def all_well(self) -> bool:
        """Whether every process takes traffic."""
        return all(map(self.well, (*self.slots, *self.engine_slots)))

    def count_well(self) -> int:
        """Return how many workers take traffic."""
        return sum(map(self.well, self.slots))

    def any_unwell(self) -> bool:
        """Whether a worker lives and takes no traffic: who is connected to it asks it all the same.

        Nobody asks one that is gone or not there yet. Engines do not count: each worker knows
        which of them it can reach.
        """
        return any(not self.well(slot) for slot in self.processes() if slot in self.slots)

    def silent_s(self, slot: int) -> float:
        """Return how long a process has not reported, in seconds; 0 before its first time."""
        _, reported, _ = self._read(slot)
        return time.monotonic() - reported if reported else 0.0

    def processes(self) -> dict[int, int]:
        """Return the process id of everyone who lives, by slot."""
        slots = (*self.slots, *self.engine_slots)
        return {slot: process for slot in slots if (process := self._read(slot)[0])}

    def _write(self, slot: int, process: int, reported: float, well: float) -> None:
        # By assignment: `pack_into` would show zeros in between.
        start = slot * _SIZE
        self._memory[start : start + _RECORD.size] = _RECORD.pack(process, reported, well)

    def _read(self, slot: int) -> tuple[int, float, float]:
        process, reported, well = _RECORD.unpack_from(self._memory, slot * _SIZE)
        return process, reported, well


@dataclass(frozen=True)
class WorkerSlot:
    """One process's place in the registry."""

    workers: WorkerRegistry
    slot: int

    @property
    def title(self) -> str:
        """What this process is called: "worker-1", "engine-0"."""
        return self.workers.title(self.slot)

    def report(self, well: bool) -> None:
        """Say that this process lives, and whether it takes traffic."""
        self.workers.report(self.slot, well)

    def hold(self, connections: int) -> None:
        """Say how many connections this worker has."""
        self.workers.hold(self.slot, connections)

    def any_unwell(self) -> bool:
        """Tell whether a worker lives and takes no traffic."""
        return self.workers.any_unwell()

    def count_well(self) -> int:
        """Return how many workers take traffic."""
        return self.workers.count_well()

    def signal_overload(self) -> None:
        """Tell the other workers that there is too much to do."""
        self.workers.signal_overload()

    def overloaded_s_ago(self) -> float:
        """Return how long ago any worker said so, in seconds; very long where none did."""
        return self.workers.overloaded_s_ago()


def open_registry(folder: Path, settings: Settings) -> WorkerRegistry:
    """Open the records of all processes.

    Args:
        folder: The supervisor's.
        settings: How many processes there are.

    Raises:
        SettingsError: There is no room for them.
    """
    try:
        return WorkerRegistry(folder, settings.workers, len(engine_devices(settings)))
    except OSError as error:
        raise SettingsError(f"no room for metrics in {folder}: {error.strerror}") from None


def take_slot(folder: Path, settings: Settings, slot: int) -> WorkerSlot:
    """Take the place `slot`, and keep this process's metrics there; before the first of them.

    Args:
        folder: The supervisor's.
        settings: How many processes there are.
        slot: The supervisor's number for this one.

    Raises:
        SettingsError: There is no room for its figures.
    """
    workers = open_registry(folder, settings)
    try:
        prepare_metric_files(folder, slot)
    except OSError as error:
        raise SettingsError(f"no room for metrics in {folder}: {error.strerror}") from None
    return WorkerSlot(workers, slot)
