"""How a process takes its place among several.

Not its duty: what the places are (`service.processes.fleet`).
"""

from pathlib import Path

from service.config import Settings, SettingsError
from service.observe.shared_metrics import keep_in
from service.processes.fleet import Fleet, Seat
from service.processes.shape import engine_devices


def open_fleet(folder: Path, settings: Settings) -> Fleet:
    """Open the records of all processes.

    Args:
        folder: The supervisor's.
        settings: How many processes there are.

    Raises:
        SettingsError: There is no room for them.
    """
    try:
        return Fleet(folder, settings.workers, len(engine_devices(settings)))
    except OSError as error:
        raise SettingsError(f"no room for metrics in {folder}: {error.strerror}") from None


def take_seat(folder: Path, settings: Settings, slot: int) -> Seat:
    """Take the place `slot`, and keep this process's metrics there; before the first of them.

    Args:
        folder: The supervisor's.
        settings: How many processes there are.
        slot: The supervisor's number for this one.

    Raises:
        SettingsError: There is no room for its figures.
    """
    seat = Seat(open_fleet(folder, settings), slot)
    try:
        keep_in(seat)
    except OSError as error:
        raise SettingsError(f"no room for metrics in {folder}: {error.strerror}") from None
    return seat
