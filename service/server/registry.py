"""The registry of the service's processes: which of them run, and which are healthy.

A file in shared memory has a record for each worker and each engine process. The process updates
it about once a second; the supervisor clears it when the process has died. A worker's record also
counts its connections. The last field is the time at which any worker was last overloaded. Times
are of the monotonic clock, which all processes of a host share.
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
"""A process without a report for so long is unhealthy: its event loop is blocked."""

_RECORD = struct.Struct("qdd")  # process id, time of the last report, and of the last healthy one
_CONNECTIONS = struct.Struct("q")
_SIZE = _RECORD.size + _CONNECTIONS.size
_OVERLOAD = struct.Struct("d")


class WorkerRegistry:
    """The records of all processes; every process of the service opens it.

    Attributes:
        folder: Of the records, the metrics and the engines' sockets.
        slots: The workers' slots.
        engine_slots: The engine processes' slots, which follow the workers'.
    """

    def __init__(self, folder: Path, workers: int, engines: int = 0) -> None:
        """Open the records; creates the file if needed.

        Args:
            folder: Private to the service, preferably in memory.
            workers: Number of workers.
            engines: Number of engine processes.

        Raises:
            OSError: There is no space for the file.
        """
        self.folder = folder
        self.slots = range(workers)
        self.engine_slots = range(workers, workers + engines)
        size = (workers + engines) * _SIZE + _OVERLOAD.size
        descriptor = os.open(folder / "workers", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Allocate now or fail now: otherwise the kernel would kill a process at a later write.
            os.posix_fallocate(descriptor, 0, size)
            self._memory = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)

    def socket_path(self, slot: int) -> Path:
        """Return the path of an engine's socket."""
        return self.folder / f"{self.name(slot)}.socket"

    def name(self, slot: int) -> str:
        """Return the name of a process: "worker-1", "engine-0"."""
        if slot in self.engine_slots:
            return f"engine-{slot - self.engine_slots.start}"
        return f"worker-{slot}"

    def report(self, slot: int, healthy: bool) -> None:
        """Report that this process, in `slot`, runs, and whether it is healthy."""
        now = time.monotonic()
        self._write(slot, os.getpid(), now, now if healthy else 0.0)

    def clear(self, slot: int) -> None:
        """Clear the record of a dead process."""
        self._write(slot, 0, 0.0, 0.0)
        self.set_connections(slot, 0)

    def is_healthy(self, slot: int) -> bool:
        """Return whether a process is healthy, by its last reports."""
        return time.monotonic() - self._read(slot)[2] <= STALE_S

    def set_connections(self, slot: int, connections: int) -> None:
        """Record how many connections a worker has."""
        start = slot * _SIZE + _RECORD.size
        self._memory[start : start + _CONNECTIONS.size] = _CONNECTIONS.pack(connections)

    def get_connections(self, slot: int) -> int:
        """Return how many connections a worker has, by its last record."""
        connections: int = _CONNECTIONS.unpack_from(self._memory, slot * _SIZE + _RECORD.size)[0]
        return connections

    def signal_overload(self) -> None:
        """Record that a worker has refused a request because of overload."""
        self._memory[-_OVERLOAD.size :] = _OVERLOAD.pack(time.monotonic())

    def seconds_since_overload(self) -> float:
        """Return the seconds since the last overload of any worker; infinity without one."""
        last: float = _OVERLOAD.unpack_from(self._memory, len(self._memory) - _OVERLOAD.size)[0]
        return time.monotonic() - last if last else float("inf")

    def all_healthy(self) -> bool:
        """Return whether all processes are healthy."""
        return all(map(self.is_healthy, (*self.slots, *self.engine_slots)))

    def count_healthy(self) -> int:
        """Return how many workers are healthy."""
        return sum(map(self.is_healthy, self.slots))

    def any_unhealthy(self) -> bool:
        """Return whether a running worker is unhealthy; its connected clients still send requests.

        Dead and starting workers do not count, since no client is connected to them. Engines do
        not count, since each worker knows which of them it can use.
        """
        return any(not self.is_healthy(slot) for slot in self.processes() if slot in self.slots)

    def seconds_since_report(self, slot: int) -> float:
        """Return the seconds since a process's last report; 0 before its first one."""
        _, reported, _ = self._read(slot)
        return time.monotonic() - reported if reported else 0.0

    def processes(self) -> dict[int, int]:
        """Return the ids of the running processes, by slot."""
        slots = (*self.slots, *self.engine_slots)
        return {slot: process for slot in slots if (process := self._read(slot)[0])}

    def _write(self, slot: int, process: int, reported: float, healthy: float) -> None:
        # By assignment: with `pack_into` other processes could read zeros in between.
        start = slot * _SIZE
        self._memory[start : start + _RECORD.size] = _RECORD.pack(process, reported, healthy)

    def _read(self, slot: int) -> tuple[int, float, float]:
        process, reported, healthy = _RECORD.unpack_from(self._memory, slot * _SIZE)
        return process, reported, healthy


@dataclass(frozen=True)
class WorkerSlot:
    """A process's own slot in the registry."""

    workers: WorkerRegistry
    slot: int

    @property
    def name(self) -> str:
        """The name of this process: "worker-1", "engine-0"."""
        return self.workers.name(self.slot)

    def report(self, healthy: bool) -> None:
        """Report that this process runs, and whether it is healthy."""
        self.workers.report(self.slot, healthy)

    def set_connections(self, connections: int) -> None:
        """Record how many connections this worker has."""
        self.workers.set_connections(self.slot, connections)

    def any_unhealthy(self) -> bool:
        """Return whether a running worker is unhealthy."""
        return self.workers.any_unhealthy()

    def count_healthy(self) -> int:
        """Return how many workers are healthy."""
        return self.workers.count_healthy()

    def signal_overload(self) -> None:
        """Record, for all workers, that this one is overloaded."""
        self.workers.signal_overload()

    def seconds_since_overload(self) -> float:
        """Return the seconds since the last overload of any worker; infinity without one."""
        return self.workers.seconds_since_overload()


def open_registry(folder: Path, settings: Settings) -> WorkerRegistry:
    """Open the registry.

    Args:
        folder: The supervisor's.
        settings: Give the number of processes; fitted to the host.

    Raises:
        SettingsError: There is no space for the file.
    """
    try:
        return WorkerRegistry(folder, settings.workers or 1, len(engine_devices(settings)))
    except OSError as error:
        raise SettingsError(f"no room for metrics in {folder}: {error.strerror}") from None


def claim_slot(folder: Path, settings: Settings, slot: int) -> WorkerSlot:
    """Claim a slot for this process and prepare its metric files; before it declares a metric.

    Args:
        folder: The supervisor's.
        settings: Give the number of processes; fitted to the host.
        slot: The slot that the supervisor assigned.

    Raises:
        SettingsError: There is no space for the files.
    """
    workers = open_registry(folder, settings)
    try:
        prepare_metric_files(folder, slot)
    except OSError as error:
        raise SettingsError(f"no room for metrics in {folder}: {error.strerror}") from None
    return WorkerSlot(workers, slot)
