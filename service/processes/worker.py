"""One of several workers: `python -m service.processes.worker SLOT FOLDER DESCRIPTOR`.

For the supervisor alone. Not its duty: anything that a service of one process does too
(`service.processes.server`).
"""

import os
import shutil
import socket
import sys
from pathlib import Path

from service.config import Settings, SettingsError
from service.inference.errors import EngineError
from service.inference.remote_batcher import RemoteBatcher
from service.observe.logs import set_up_logging
from service.processes.exits import exit_well_on_signals, refuse
from service.processes.fleet import Fleet
from service.processes.seating import take_seat
from service.processes.server import serve
from training.model.manifest import CheckpointError


def main() -> None:
    """Serve until the supervisor says so or is gone; exits with 0 then, with 2 where it cannot."""
    exit_well_on_signals()
    slot, folder = int(sys.argv[1]), Path(sys.argv[2])
    supervisor = os.getppid()
    try:
        settings = Settings.from_environ(os.environ)
        seat = take_seat(folder, settings, slot)
        set_up_logging(settings.log_level, settings.log_format, seat.fleet.title(slot))
        with socket.socket(fileno=int(sys.argv[3])) as listener:  # the supervisor's, and everyone's
            serve(settings, listener, _reach_engines(seat.fleet, settings), seat)
    except (SettingsError, CheckpointError, EngineError) as error:
        refuse(error)
    if os.getppid() == supervisor:  # no signal, and yet at the end: it never began to serve
        sys.exit(1)
    # The supervisor is gone, and cannot clean up any more.
    shutil.rmtree(folder, ignore_errors=True)


def _reach_engines(fleet: Fleet, settings: Settings) -> RemoteBatcher | None:
    """Return the way to the engines that are processes of their own; None where there are none."""
    slots = fleet.engine_slots
    if not slots:
        return None
    sockets = [fleet.socket_of(slot) for slot in slots]
    return RemoteBatcher(sockets, lambda place: fleet.well(slots[place]), settings.queue_size)


if __name__ == "__main__":
    main()
