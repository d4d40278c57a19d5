"""What the worker processes of one service know of each other: who lives and who is well.

A file in shared memory with a record for each worker, written by that worker about once a second
and wiped by the supervisor when it died. Times are of the monotonic clock, which all processes of
a host share. Not its duty: starting workers (`service.processes.workers`), counting
(`service.observe.metrics`).
"""

import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

REPORT_EVERY_S = 1.0
STALE_S = 5.0
"""A worker that has not reported for so long is not well: its event loop does not turn."""

_RECORD = struct.Struct("qdd")  # process id, when it last reported, when it last was well


class Fleet:
    """The records of all workers; any process that has the folder may open it."""

    def __init__(self, folder: Path, workers: int) -> None:
        """Open the records, making an empty file where there is none.

        Args:
            folder: Private to the service, best in memory.
            workers: How many there are.

        Raises:
            OSError: There is no room for the file.
        """
        self.folder = folder
        self.slots = range(workers)
        size = workers * _RECORD.size
        descriptor = os.open(folder / "fleet", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Room now, or an error now: without it the kernel would end whoever writes later.
            os.posix_fallocate(descriptor, 0, size)
            self._memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)

    def report(self, slot: int, well: bool) -> None:
        """Say that the worker `slot`, this process, lives, and whether it takes traffic."""
        now = time.monotonic()
        self._write(slot, os.getpid(), now, now if well else 0.0)

    def wipe(self, slot: int) -> None:
        """Forget the worker `slot`, which is gone."""
        self._write(slot, 0, 0.0, 0.0)

    def well(self, slot: int) -> bool:
        """Whether the worker `slot` takes traffic, as far as is known."""
        return time.monotonic() - self._read(slot)[2] <= STALE_S

    def all_well(self) -> bool:
        """Whether every worker takes traffic."""
        return all(map(self.well, self.slots))

    def count_well(self) -> int:
        """Return how many workers take traffic."""
        return sum(map(self.well, self.slots))

    def any_unwell(self) -> bool:
        """Whether a worker lives and takes no traffic: it is sent its share all the same.

        Nobody is sent to the place of one that is gone or not there yet.
        """
        return any(not self.well(slot) for slot in self.processes())

    def silent_s(self, slot: int) -> float:
        """Return how long the worker `slot` has not reported, in seconds; 0 before its first."""
        _, reported, _ = self._read(slot)
        return time.monotonic() - reported if reported else 0.0

    def processes(self) -> dict[int, int]:
        """Return the process id of every worker that lives, by slot."""
        return {slot: process for slot in self.slots if (process := self._read(slot)[0])}

    def _write(self, slot: int, process: int, reported: float, well: float) -> None:
        # By assignment: `pack_into` would show zeros in between.
        start = slot * _RECORD.size
        self._memory[start : start + _RECORD.size] = _RECORD.pack(process, reported, well)

    def _read(self, slot: int) -> tuple[int, float, float]:
        process, reported, well = _RECORD.unpack_from(self._memory, slot * _RECORD.size)
        return process, reported, well


@dataclass(frozen=True)
class Seat:
    """One worker's place in the fleet."""

    fleet: Fleet
    slot: int
