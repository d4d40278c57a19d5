"""An engine as a process of its own: `python -m service.server.engine_process SLOT FOLDER`.

    workers ─▶ socket in FOLDER ─▶ one queue ─▶ batches ─▶ device

For the supervisor alone. It ends when the supervisor says so, which is after the last worker has
ended, or once the supervisor is gone and so are the workers. Not its duty: HTTP; pictures.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry

from service.config import Settings, SettingsError
from service.engine.contract import Engine, EngineInfo
from service.engine.errors import EngineError
from service.engine.loading import open_engine
from service.queue.batcher import Batcher
from service.queue.startup import start_batcher
from service.remote.host import EngineHost
from service.server.malloc import tune_malloc
from service.server.registry import REPORT_EVERY_S, WorkerSlot, take_slot
from service.server.supervisor import exit_well_on_signals, refuse
from service.server.topology import engine_devices
from service.telemetry.logs import set_up_logging
from service.telemetry.metrics import Metrics
from service.telemetry.nvml import device_uuid
from training.model.manifest import CheckpointError

_BACKLOG = 256  # as many workers as there can be
_LAST_WRITE_S = 1.0

_log = logging.getLogger(__name__)


def main() -> None:
    """Compute until the supervisor says so or is gone; exits with 2 where it cannot start."""
    exit_well_on_signals()
    slot, folder = int(sys.argv[1]), Path(sys.argv[2])
    began = time.monotonic()
    try:
        settings = Settings.from_environ(os.environ)
        worker_slot = take_slot(folder, settings, slot)
        set_up_logging(settings.log_level, settings.log_format, worker_slot.title)
        place = slot - worker_slot.workers.engine_slots.start
        settings = replace(settings, device=engine_devices(settings)[place])
        tune_malloc()
        with _bind(worker_slot.workers.socket_of(slot)) as listener:
            uvloop.run(serve_engine(settings, open_engine(settings), worker_slot, listener, began))
    except (SettingsError, CheckpointError, EngineError) as error:
        refuse(error)


async def serve_engine(
    settings: Settings,
    engine: Engine,
    worker_slot: WorkerSlot,
    listener: socket.socket,
    began: float,
) -> None:
    """Serve an engine to workers until SIGTERM or SIGINT, or until everybody else is gone.

    Args:
        settings: Sizes, and how long accepted faces may take at the end.
        engine: Cold.
        worker_slot: This process's place.
        listener: Bound, not listening yet.
        began: When this process started, by the monotonic clock.
    """
    loop, told, orphaned = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    batcher = await start_batcher(settings, engine, Metrics(CollectorRegistry()))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    loop.add_reader(sys.stdin, _note_end, loop, orphaned)
    host = EngineHost(
        batcher, EngineInfo(engine.manifest, engine.device, device_uuid(engine.device))
    )
    server = await loop.create_unix_server(host.protocol, sock=listener, backlog=_BACKLOG)
    gc.collect()
    gc.freeze()
    reporting = asyncio.create_task(_report(worker_slot, batcher))
    _log.info(
        "ready: %s %s on %s, after %.1f s",
        *(engine.manifest.name, engine.manifest.version, engine.device, time.monotonic() - began),
    )
    await _told_or_alone(told, orphaned, host, settings.drain_s)
    reporting.cancel()
    server.close()
    await batcher.drain(settings.drain_s)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WRITE_S):
            await host.close()


def _bind(path: Path) -> socket.socket:
    """Take the place of whoever listened there before, who is dead."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        listener.close()
        raise SettingsError(f"cannot listen at {path}: {error}") from None
    return listener


async def _report(worker_slot: WorkerSlot, batcher: Batcher) -> None:
    """Tell supervisor and workers that this process lives, and whether its engine answers."""
    while True:
        worker_slot.report(batcher.healthy)
        await asyncio.sleep(REPORT_EVERY_S)


def _note_end(loop: asyncio.AbstractEventLoop, orphaned: asyncio.Event) -> None:
    """The supervisor never writes: its pipe can only have closed."""
    loop.remove_reader(sys.stdin)
    _log.error("the supervisor is gone; ending after the workers")
    orphaned.set()


async def _told_or_alone(
    told: asyncio.Event, orphaned: asyncio.Event, host: EngineHost, drain_s: float
) -> None:
    """Wait for a signal; or for the supervisor's end, and then for the workers' as well."""

    async def alone() -> None:
        await orphaned.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await host.idle.wait()

    waiting = [asyncio.create_task(told.wait()), asyncio.create_task(alone())]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


if __name__ == "__main__":
    main()
