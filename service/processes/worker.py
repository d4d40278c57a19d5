"""One of several workers: `python -m service.processes.worker SLOT FOLDER`.

For the supervisor alone. Not its duty: anything that a service of one process does too
(`service.processes.server`).
"""

import os
import shutil
import sys
from pathlib import Path

from service.config import Settings, SettingsError
from service.inference.engine import EngineError
from service.observe.logs import set_up_logging
from service.observe.shared_metrics import keep_in
from service.processes.exits import refuse
from service.processes.fleet import Fleet, Seat
from service.processes.listener import bind
from service.processes.server import exit_well_on_signals, serve
from training.model.checkpoint import CheckpointError


def main() -> None:
    """Serve until the supervisor says so or is gone; exits with 0 then, with 2 where it cannot."""
    exit_well_on_signals()
    slot, folder = int(sys.argv[1]), Path(sys.argv[2])
    try:
        settings = Settings.from_environ(os.environ)
        set_up_logging(settings.log_level, settings.log_format, slot)
        seat = _take_seat(folder, settings.workers, slot)
        with bind(settings.host, settings.port, shared=True) as listener:
            serve(settings, listener, seat=seat)
    except (SettingsError, CheckpointError, EngineError) as error:
        refuse(error)
    # Served to the end without a signal: the supervisor is gone, and cannot clean up any more.
    shutil.rmtree(folder, ignore_errors=True)


def _take_seat(folder: Path, workers: int, slot: int) -> Seat:
    try:
        seat = Seat(Fleet(folder, workers), slot)
        keep_in(seat)
    except OSError as error:
        raise SettingsError(f"no room for metrics in {folder}: {error.strerror}") from None
    return seat


if __name__ == "__main__":
    main()
