"""How a process takes its place among several.

Not its duty: what the places are (`service.server.registry`).
"""

from pathlib import Path

from service.config import Settings, SettingsError
from service.server.registry import WorkerRegistry, WorkerSlot
from service.server.topology import engine_devices
from service.telemetry.shared_metrics import keep_in


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
    worker_slot = WorkerSlot(open_registry(folder, settings), slot)
    try:
        keep_in(worker_slot)
    except OSError as error:
        raise SettingsError(f"no room for metrics in {folder}: {error.strerror}") from None
    return worker_slot
