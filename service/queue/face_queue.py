"""Where faces wait for the engine: first come, first served, safe between loop and worker.

Who may enter is the batcher's to decide.
"""

import threading
from collections import deque
from collections.abc import Callable

from service.queue.ticket import Part, Ticket

GIVE_WAY_S = 0.1
"""How long a batch that is not full leaves the cores to others; less where a face has little time.

A core decodes 16 pictures and finds their faces in that time.
"""
SETTLE_S = 0.001
"""How long it does so after a batch of several: those just answered are asking again.

What they send meets what came during the batch, in one batch instead of two that follow each other
for ever: 14 % more requests a second from 8 clients, 3 % from 64.
"""
_LOOK_S = 0.005


def _never() -> bool:
    return False


class FaceQueue:
    """The waiting faces. The event loop puts and withdraws, the worker takes.

    Whoever is gone or late is dropped as a batch is formed, so that a batch is full if enough
    faces are wanted. The lock is held for microseconds: pixels are not touched under it.
    """

    def __init__(self, max_batch: int, linger_s: float, clock: Callable[[], float]) -> None:
        """Begin empty.

        Args:
            max_batch: Faces in a batch, 1 or more.
            linger_s: How long a batch that is not full waits for more; 0 or more.
            clock: Seconds that only go forward.
        """
        self._max_batch, self._linger_s, self._clock = max_batch, linger_s, clock
        self.crowded: Callable[[], bool] = _never
        self._changed = threading.Condition(threading.Lock())
        self._tickets: deque[Ticket] = deque()
        self._running: deque[list[Part]] = deque()
        self._settled = 0.0  # until when it gives way to those just answered
        self._closed = False
        self.waiting = 0
        """Faces that wait. Only `put` adds to it: what the loop reads there is never too low."""
        self.running = 0
        """Faces that the worker took and has not come back with."""

    def put(self, ticket: Ticket) -> None:
        """Let a ticket wait, at the end; on the event loop."""
        with self._changed:
            self._tickets.append(ticket)
            self.waiting += len(ticket.faces)
            self._changed.notify()

    def withdraw(self, ticket: Ticket) -> int:
        """Take back what has not left the queue; on the event loop.

        Args:
            ticket: May be answered, or be in the queue no more.

        Returns:
            How many faces will not reach the engine because of this.
        """
        with self._changed:
            left = len(ticket.faces) - ticket.taken
            ticket.taken += left
            self.waiting -= left
            # `take` may have dropped it, and left the counting to this.
            if left and ticket in self._tickets:
                self._tickets.remove(ticket)
        return left

    def take(self) -> list[Part]:
        """Wait for the next batch; in the worker.

        Returns:
            The next faces, in order, all of one height and width; none once the queue is closed
            and empty.
        """
        with self._changed:
            while True:
                self._await_more()
                parts = self._pick()
                if parts or (self._closed and not self._tickets):
                    return parts
                self._changed.wait()

    def take_full(self) -> list[Part]:
        """Take a batch that gains nothing by waiting for the engine, if there is one; likewise.

        Returns:
            As `take`, without waiting; none where a batch would not be full.
        """
        with self._changed:
            return self._pick() if self.waiting >= self._max_batch else []

    def come_back(self) -> None:
        """Say that the worker is done with the batch that it took first; in the worker."""
        with self._changed:
            faces = sum(part.stop - part.start for part in self._running.popleft())
            self.running -= faces
            if faces > 1 and self.crowded is not _never:
                self._settled = self._clock() + SETTLE_S

    def close(self) -> None:
        """Let `take` end when nothing waits any more; any thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def unfinished(self) -> list[Ticket]:
        """Return the tickets that wait or run; any thread."""
        with self._changed:
            return [*self._tickets, *(part.ticket for parts in self._running for part in parts)]

    def _await_more(self) -> None:
        """Linger or give way, counting from the first arrival, while the batch is not full."""
        while self._tickets and self.waiting < self._max_batch and not self._closed:
            first, now = self._tickets[0], self._clock()
            crowded = self.crowded()
            most_s = min(GIVE_WAY_S, (first.deadline - first.submitted) / 4) if crowded else 0.0
            left_s = max(first.submitted + max(most_s, self._linger_s), self._settled) - now
            if left_s <= 0:
                return
            # Nobody tells when the crowd is gone.
            self._changed.wait(min(left_s, _LOOK_S) if crowded else left_s)

    def _pick(self) -> list[Part]:
        now, room = self._clock(), self._max_batch
        parts: list[Part] = []
        size = 0, 0
        while room and self._tickets:
            ticket = self._tickets[0]
            if not ticket.wanted(now):
                self._tickets.popleft()  # its own timer answers it, its submission withdraws it
                continue
            count, height, width = ticket.faces.shape
            if parts and size != (height, width):
                break  # no stack can hold both
            size = height, width
            stop = min(ticket.taken + room, count)
            parts.append(Part(ticket, ticket.taken, stop))
            room -= stop - ticket.taken
            ticket.taken = stop
            if stop == count:
                self._tickets.popleft()
        if parts:
            self._running.append(parts)
            self.running += self._max_batch - room
            self.waiting -= self._max_batch - room
        return parts
