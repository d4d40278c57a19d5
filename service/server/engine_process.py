"""An engine process: `python -m service.server.engine_process SLOT FOLDER`.

    workers ─▶ socket in FOLDER ─▶ one queue ─▶ batches ─▶ device

Started by the supervisor only. It ends at the supervisor's SIGTERM, which comes after the last
worker has ended, or once the supervisor and all workers have died.
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
from service.server.registry import REPORT_EVERY_S, WorkerSlot, claim_slot
from service.server.supervisor import exit_cleanly_on_signals, refuse
from service.server.topology import engine_devices
from service.telemetry.logs import set_up_logging
from service.telemetry.metrics import Metrics
from service.telemetry.nvml import device_uuid
from service.threads import all_have_ended, run_and_exit
from training.model.manifest import CheckpointError

_BACKLOG = 256  # the highest number of workers
_LAST_WRITE_S = 1.0

_log = logging.getLogger(__name__)


def main() -> None:
    """Serve until the supervisor sends SIGTERM or dies; exits with 2 if it cannot start."""
    exit_cleanly_on_signals()
    slot, folder = int(sys.argv[1]), Path(sys.argv[2])
    began = time.monotonic()
    try:
        settings = Settings.from_environ(os.environ)
        worker_slot = claim_slot(folder, settings, slot)
        set_up_logging(settings.log_level, settings.log_format, worker_slot.name)
        index = slot - worker_slot.workers.engine_slots.start
        settings = replace(settings, device=engine_devices(settings)[index])
        tune_malloc()
        with _bind(worker_slot.workers.socket_path(slot)) as listener:
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
    """Serve an engine to workers until SIGTERM or SIGINT, or until supervisor and workers died.

    Args:
        settings: Sizes, and how long accepted faces may take at the end.
        engine: Loaded, not warm yet.
        worker_slot: This process's slot.
        listener: Bound, not listening yet.
        began: When this process started, by the monotonic clock.
    """
    loop, signalled, orphaned = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    batcher = await start_batcher(settings, engine, Metrics(CollectorRegistry()))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled.set)
    loop.add_reader(sys.stdin, _on_supervisor_end, loop, orphaned)
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
    await _wait_for_end(signalled, orphaned, host, settings.drain_s)
    reporting.cancel()
    server.close()
    await batcher.drain(settings.drain_s)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WRITE_S):
            await host.close()
    if not all_have_ended(_LAST_WRITE_S):
        _log.error("the engine did not end in time; exiting without it")
        os._exit(0)


def _bind(path: Path) -> socket.socket:
    """Bind a Unix socket, replacing that of the slot's dead process."""
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
    """Report periodically that this process runs, and whether its engine is healthy."""
    while True:
        worker_slot.report(batcher.healthy)
        await asyncio.sleep(REPORT_EVERY_S)


def _on_supervisor_end(loop: asyncio.AbstractEventLoop, orphaned: asyncio.Event) -> None:
    """Handle the end of the pipe: the supervisor never writes, so it has died."""
    loop.remove_reader(sys.stdin)
    _log.error("the supervisor has died; shutting down after the workers")
    orphaned.set()


async def _wait_for_end(
    signalled: asyncio.Event, orphaned: asyncio.Event, host: EngineHost, drain_s: float
) -> None:
    """Wait for a signal, or for the end of the supervisor and then of the workers."""

    async def wait_for_workers() -> None:
        await orphaned.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await host.idle.wait()

    waiting = [asyncio.create_task(signalled.wait()), asyncio.create_task(wait_for_workers())]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


if __name__ == "__main__":
    run_and_exit(main)
