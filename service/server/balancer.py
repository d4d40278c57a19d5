"""Connections taken from one socket by several workers, so that each has as many as the others.

    listener ─▶ worker 0   who has fewest takes the next one at once;
             ─▶ worker 1   who has more, or is not well, waits a moment, in case nobody else does

With a socket each the kernel deals evenly only by chance: of 8 connections that were kept open, two
workers got 2 and 6, and answered 12 % less than with 4 and 4. Where all accept as they come,
whoever is idle takes nearly all. And here who has connected waits for any of them, so that nobody
is lost with a worker.

Not its duty: what is said on a connection (`service.server.connections`), how many there may be.
"""

import asyncio
import logging
import math
import select
import socket
from collections.abc import Callable

from service.server.registry import WorkerSlot

GIVE_WAY_S = 0.01
"""How long a worker leaves a connection to those that have fewer."""
LOOK_S = 0.001
"""How often it looks meanwhile whether it still has more."""
# Where workers have many, one may have this share more: to the last one would slow a rush down.
_SLACK = 1 / 16
_EXHAUSTED_S = 0.5  # until descriptors or memory are asked for again

_log = logging.getLogger(__name__)


class ConnectionBalancer:
    """One worker's hand on the shared socket; on the event loop alone."""

    def __init__(
        self,
        listener: socket.socket,
        worker_slot: WorkerSlot,
        protocol: Callable[[], asyncio.BaseProtocol],
    ) -> None:
        """Take nothing yet.

        Args:
            listener: Listening, and shared by all workers; closed at the end.
            worker_slot: This worker's place.
            protocol: Makes what serves a connection.
        """
        self._listener, self._worker_slot, self._protocol = listener, worker_slot, protocol
        self._connected = 0
        self._opening = 0  # taken, and not yet among those
        self._tasks: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._since: float | None = None  # when those that wait were left to others
        self._taken = 0  # how many connections they had then

    def start(self) -> None:
        """Take connections from now on."""
        self._loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        self._polling = select.poll()
        self._polling.register(self._listener, select.POLLIN)
        self._loop.add_reader(self._listener, self._look)

    def tell(self, connected: int) -> None:
        """Learn that a connection was made or lost, and let the other workers know.

        Args:
            connected: How many this worker has now.
        """
        if connected > self._connected:
            self._opening -= 1
        self._connected = connected
        self._hold()

    async def close(self) -> None:
        """Take no more; what was taken has begun to be served."""
        self._loop.remove_reader(self._listener)
        if self._timer is not None:
            self._timer.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._listener.close()

    def _look(self) -> None:
        """A connection waits, unless another worker was faster."""
        workers, slot = self._worker_slot.workers, self._worker_slot.slot
        others = [other for other in workers.slots if other != slot]
        enough = self._connected + self._opening if workers.well(slot) else math.inf
        better = any(
            enough > (1 + _SLACK) * workers.held(other) and workers.well(other) for other in others
        )
        if better and not self._idle_for_long(sum(map(workers.held, others))):
            self._pause(LOOK_S)
            return
        self._since = None
        self._accept()

    def _idle_for_long(self, taken: int) -> bool:
        """Whether the others, who have so many, took none in all the time that they were left."""
        now = self._loop.time()
        if self._since is None or taken > self._taken:
            self._since, self._taken = now, taken
        return now - self._since >= GIVE_WAY_S

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._timer = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._timer = None
        self._loop.add_reader(self._listener, self._look)
        if self._polling.poll(0):
            self._look()
        else:
            self._since = None  # another worker has it

    def _accept(self) -> None:
        try:
            taken, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # another one has it, or nobody any more
        except OSError as error:
            _log.error("no connection can be taken at present: %s", error.strerror)
            self._pause(_EXHAUSTED_S)
            return
        self._opening += 1
        self._hold()
        task: asyncio.Task[object] = self._loop.create_task(self._open(taken))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, taken: socket.socket) -> None:
        try:
            taken.setblocking(False)
            await self._loop.connect_accepted_socket(self._protocol, taken)
        except OSError as error:
            _log.error("a connection could not be opened: %s", error)
            self._opening -= 1
            self._hold()

    def _hold(self) -> None:
        self._worker_slot.hold(self._connected + self._opening)
