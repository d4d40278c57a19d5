"""Balances the connections of one listening socket between several workers.

    listener ─▶ worker 0   with the fewest connections: accepts the next one at once
             ─▶ worker 1   with more, or unhealthy: waits a moment, in case no other one accepts

With a socket for each worker, the kernel distributes by hash: of 8 kept-alive connections, two
workers got 2 and 6, and answered 12 % fewer requests than with 4 and 4. If every worker accepts at
once, an idle one takes nearly all. With one shared socket, any worker can accept a waiting
connection, so none is lost when a worker dies.
"""

import asyncio
import logging
import math
import select
import socket
from collections.abc import Callable

from service.server.registry import WorkerSlot

DEFER_S = 0.01
"""How long a worker leaves a waiting connection to workers with fewer connections."""
POLL_S = 0.001
"""How often it compares the numbers meanwhile."""
EXHAUSTED_PAUSE_S = 0.5
"""How long a worker accepts nothing when descriptors or memory are exhausted."""
# A worker may have this share more: exact balance would slow down accepting many connections.
_SLACK = 1 / 16

_log = logging.getLogger(__name__)


class ConnectionBalancer:
    """Accepts connections from the shared socket for one worker; used on the event loop only."""

    def __init__(
        self,
        listener: socket.socket,
        worker_slot: WorkerSlot,
        protocol: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        """Create the balancer; `start` begins to accept.

        Args:
            listener: Listening, and shared by all workers; closed by `close`.
            worker_slot: This worker's slot.
            protocol: Creates the protocol of a connection.
        """
        self._listener, self._worker_slot, self._protocol = listener, worker_slot, protocol
        self._connected = 0
        self._opening = 0  # accepted, but not yet counted in `_connected`
        self._tasks: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._since: float | None = None  # start of the deferral
        self._others_before = 0  # the other workers' connections then

    def start(self) -> None:
        """Begin to accept connections."""
        self._loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        self._polling = select.poll()
        self._polling.register(self._listener, select.POLLIN)
        self._loop.add_reader(self._listener, self._on_readable)

    def update(self, connected: int) -> None:
        """Update and publish the number of connections, after one was opened or closed.

        Args:
            connected: How many this worker has now.
        """
        if connected > self._connected:
            self._opening -= 1
        self._connected = connected
        self._publish()

    async def close(self) -> None:
        """Stop accepting, after every accepted connection has its protocol."""
        self._loop.remove_reader(self._listener)
        if self._timer is not None:
            self._timer.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._listener.close()

    def _on_readable(self) -> None:
        """Accept a waiting connection, or leave it to another worker for now."""
        workers, slot = self._worker_slot.workers, self._worker_slot.slot
        others = [other for other in workers.slots if other != slot]
        own = self._connected + self._opening if workers.is_healthy(slot) else math.inf
        better = any(
            own > (1 + _SLACK) * workers.get_connections(other) and workers.is_healthy(other)
            for other in others
        )
        if better and not self._others_idle(sum(map(workers.get_connections, others))):
            self._pause(POLL_S)
            return
        self._since = None
        self._accept()

    def _others_idle(self, accepted: int) -> bool:
        """Return whether the other workers accepted no connection during the deferral."""
        now = self._loop.time()
        if self._since is None or accepted > self._others_before:
            self._since, self._others_before = now, accepted
        return now - self._since >= DEFER_S

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._timer = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listener, self._on_readable)
        if self._polling.poll(0):
            self._on_readable()
        else:
            self._since = None  # another worker has accepted it

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # another worker has accepted it, or the client disconnected
        except OSError as error:
            _log.error("no connection can be accepted at present: %s", error.strerror)
            self._pause(EXHAUSTED_PAUSE_S)
            return
        self._opening += 1
        self._publish()
        task: asyncio.Task[object] = self._loop.create_task(self._open(accepted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, accepted: socket.socket) -> None:
        try:
            accepted.setblocking(False)
            await self._loop.connect_accepted_socket(self._protocol, accepted)
        except OSError as error:
            _log.error("a connection could not be opened: %s", error)
            self._opening -= 1
            self._publish()

    def _publish(self) -> None:
        self._worker_slot.set_connections(self._connected + self._opening)
