"""One of several workers: `python -m service.worker SLOT FOLDER DESCRIPTOR`.

For the supervisor (`service.server.supervisor`) alone.
"""

import os
import shutil
import socket
import sys
from pathlib import Path

from service.app import serve
from service.config import Settings, SettingsError
from service.engine.errors import EngineError
from service.remote.client import RemoteBackend
from service.server.registry import WorkerRegistry, take_slot
from service.server.supervisor import exit_well_on_signals, refuse
from service.telemetry.logs import set_up_logging
from training.model.manifest import CheckpointError


def main() -> None:
    """Serve until the supervisor says so or is gone; exits with 0 then, with 2 where it cannot."""
    exit_well_on_signals()
    slot, folder = int(sys.argv[1]), Path(sys.argv[2])
    supervisor = os.getppid()
    try:
        settings = Settings.from_environ(os.environ)
        worker_slot = take_slot(folder, settings, slot)
        set_up_logging(settings.log_level, settings.log_format, worker_slot.title)
        with socket.socket(fileno=int(sys.argv[3])) as listener:  # the supervisor's, and everyone's
            remote = _reach_engines(worker_slot.workers, settings)
            serve(settings, listener, remote=remote, worker_slot=worker_slot)
    except (SettingsError, CheckpointError, EngineError) as error:
        refuse(error)
    if os.getppid() == supervisor:  # no signal, and yet at the end: it never began to serve
        sys.exit(1)
    # The supervisor is gone, and cannot clean up any more.
    shutil.rmtree(folder, ignore_errors=True)


def _reach_engines(workers: WorkerRegistry, settings: Settings) -> RemoteBackend | None:
    """Return the way to the engines that are processes of their own; None where there are none."""
    slots = workers.engine_slots
    if not slots:
        return None
    sockets = [workers.socket_of(slot) for slot in slots]
    return RemoteBackend(sockets, lambda place: workers.well(slots[place]), settings.queue_size)


if __name__ == "__main__":
    main()
