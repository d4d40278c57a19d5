"""Serves the application in one process: uvicorn with our sockets, limits and signals."""

import asyncio
import gc
import logging
import math
import os
import socket
import sys
import time
from functools import partial
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from service.config import Settings
from service.server.balancer import ConnectionBalancer
from service.server.connections import BoundedProtocol, ConnectionLimits
from service.server.registry import WorkerSlot
from service.server.sockets import BACKLOG, allow_descriptors, format_url, listen, stop_accepting
from service.threads import all_have_ended

# Time for the event loop to accept the waiting connections at the end; one iteration suffices.
_LAST_ACCEPT_S = 0.05
_LAST_WORK_S = 1.0

_log = logging.getLogger(__name__)


def run(
    app: FastAPI,
    settings: Settings,
    listener: socket.socket,
    began: float,
    worker_slot: WorkerSlot | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, in the main thread; then finish the accepted requests.

    Args:
        app: From `service.app.create_app`, not started; its engine is loaded.
        settings: The operator's.
        listener: Bound, not listening: clients can connect only when this process, or the first of
            several workers that share it, is warm.
        began: When the process started, by the monotonic clock.
        worker_slot: This process's slot among several workers. A worker also ends when its
            standard input closes, because its supervisor has died.

    Raises:
        SettingsError: Another process took the port meanwhile.
    """
    if worker_slot is None:
        listen(listener)
    _Server(app, settings, worker_slot, listener, began).run(
        sockets=[] if worker_slot else [listener]
    )


class _Server(uvicorn.Server):
    """Uvicorn's server with our listener, drain and log."""

    def __init__(
        self,
        app: FastAPI,
        settings: Settings,
        worker_slot: WorkerSlot | None,
        listener: socket.socket,
        began: float,
    ) -> None:
        self._app = app
        limits = ConnectionLimits(
            allow_descriptors(settings.max_connections), settings.header_timeout_s
        )
        config = uvicorn.Config(
            app,
            loop="uvloop",
            # Uvicorn calls it like a protocol class.
            http=cast(
                Any,
                partial(
                    BoundedProtocol,
                    limits,
                    app.state.metrics,
                    on_connections=self._on_connections,
                ),
            ),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=cast(Any, settings.idle_timeout_s),
            timeout_graceful_shutdown=math.ceil(settings.drain_s),
        )
        super().__init__(config)
        self._worker_slot, self._listener, self._began = worker_slot, listener, began
        self._balancer: ConnectionBalancer | None = None  # None without several workers
        self._orphaned = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._worker_slot is not None:
            asyncio.get_running_loop().add_reader(sys.stdin, self._on_supervisor_end)
            listen(self._listener)
            self._balancer = ConnectionBalancer(self._listener, self._worker_slot, self._protocol)
            self._balancer.start()
        # The loaded modules are permanent: freezing them spares the garbage collector walking all
        # of torch again and again, which would pause every request.
        gc.collect()
        gc.freeze()
        _log.info(
            "ready at %s: %s, after %.1f s",
            format_url(self._listener),
            self._app.state.service.describe(),
            time.monotonic() - self._began,
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        _log.info("shutting down: accepted requests are answered, new ones refused")
        self._app.state.service.begin_drain()
        # With a supervisor, it has stopped accepting, or the other workers go on.
        if self._worker_slot is None or self._orphaned:
            stop_accepting(self._listener)
        await asyncio.sleep(_LAST_ACCEPT_S)
        await asyncio.sleep(0)  # a busy loop may not have polled the listener in that time
        if self._balancer is not None:
            await self._balancer.close()
        await super().shutdown(sockets)
        if not all_have_ended(_LAST_WORK_S):
            _log.error("a thread did not end in time; exiting without it")
            os._exit(0)

    def _on_supervisor_end(self) -> None:
        """Shut down as at a signal: the supervisor never writes, so it has died."""
        asyncio.get_running_loop().remove_reader(sys.stdin)
        _log.error("the supervisor has died; shutting down")
        self._orphaned = self.should_exit = True

    def _on_connections(self, connections: int) -> None:
        """Publish the number of connections: as a metric, and to the other workers."""
        self._app.state.metrics.connections.set(connections)
        if self._balancer is not None:
            self._balancer.update(connections)

    def _protocol(self) -> asyncio.Protocol:
        """Create the protocol of one connection, as uvicorn does for its own listeners."""
        kind = cast(Any, self.config.http_protocol_class)
        protocol: asyncio.Protocol = kind(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol
