"""A worker process: `python -m service.worker SLOT FOLDER DESCRIPTOR`.

Started by the supervisor (`service.server.supervisor`) only.
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
from service.server.registry import WorkerRegistry, claim_slot
from service.server.supervisor import exit_cleanly_on_signals, refuse
from service.telemetry.logs import set_up_logging
from service.threads import run_and_exit
from training.model.manifest import CheckpointError


def main() -> None:
    """Serve until the supervisor sends SIGTERM or dies; exits with 2 if it cannot start."""
    exit_cleanly_on_signals()
    slot, folder = int(sys.argv[1]), Path(sys.argv[2])
    supervisor = os.getppid()
    try:
        settings = Settings.from_environ(os.environ)
        worker_slot = claim_slot(folder, settings, slot)
        set_up_logging(settings.log_level, settings.log_format, worker_slot.name)
        with socket.socket(fileno=int(sys.argv[3])) as listener:  # inherited by all workers
            remote = _create_remote_backend(worker_slot.workers, settings)
            serve(settings, listener, remote=remote, worker_slot=worker_slot)
    except (SettingsError, CheckpointError, EngineError) as error:
        refuse(error)
    if os.getppid() == supervisor:  # ended without a signal: it failed to start
        sys.exit(1)
    # The supervisor has died, and cannot clean up any more.
    shutil.rmtree(folder, ignore_errors=True)


def _create_remote_backend(workers: WorkerRegistry, settings: Settings) -> RemoteBackend | None:
    """Return the client of the engine processes; None if the engine runs in this process."""
    slots = workers.engine_slots
    if not slots:
        return None
    sockets = [workers.socket_path(slot) for slot in slots]
    return RemoteBackend(sockets, lambda n: workers.is_healthy(slots[n]), settings.queue_size)


if __name__ == "__main__":
    run_and_exit(main)
