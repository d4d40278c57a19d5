"""The queue of faces for the engine: first in, first out, between event loop and worker thread."""

import threading
from collections import deque
from collections.abc import Callable

from service.queue.ticket import Part, Ticket

MAX_DEFER_S = 0.1
"""Longest wait of a batch that is not full while the cores decode; less for a near deadline.

A core decodes 16 pictures and finds their faces in that time.
"""
REGROUP_S = 0.001
"""Wait after a batch of several faces, for the next requests of the clients just answered.

Their faces then join those that arrived during the batch, instead of forming two batches that
alternate: 14 % more requests a second from 8 clients, 3 % from 64.
"""
_POLL_S = 0.005


def _never() -> bool:
    return False


class FaceQueue:
    """The waiting faces. The event loop puts and withdraws, the worker thread takes.

    Cancelled and late faces are dropped when a batch is formed, so that they take no space in it.
    The lock is held for microseconds: pixels are not touched under it.
    """

    def __init__(self, max_batch: int, linger_s: float, clock: Callable[[], float]) -> None:
        """Create an empty queue.

        Args:
            max_batch: Faces in a batch, 1 or more.
            linger_s: How long a batch that is not full waits for more; 0 or more.
            clock: Monotonic, in seconds.
        """
        self._max_batch, self._linger_s, self._clock = max_batch, linger_s, clock
        self.saturated: Callable[[], bool] = _never
        self._changed = threading.Condition(threading.Lock())
        self._tickets: deque[Ticket] = deque()
        self._running: deque[list[Part]] = deque()
        self._regroup_until = 0.0
        self._closed = False
        self.waiting = 0
        """Faces that wait. Only `put` adds to it, so the loop never reads too low a value."""
        self.running = 0
        """Faces that the worker took and has not finished."""

    def put(self, ticket: Ticket) -> None:
        """Append a ticket; on the event loop."""
        with self._changed:
            self._tickets.append(ticket)
            self.waiting += len(ticket.faces)
            self._changed.notify()

    def withdraw(self, ticket: Ticket) -> int:
        """Remove the faces of a ticket that still wait; on the event loop.

        Args:
            ticket: May be resolved already, or not be in the queue any more.

        Returns:
            How many faces were removed.
        """
        with self._changed:
            left = len(ticket.faces) - ticket.taken
            ticket.taken += left
            self.waiting -= left
            # `take` may have dropped the ticket, and leaves the counting to this.
            if left and ticket in self._tickets:
                self._tickets.remove(ticket)
        return left

    def take(self) -> list[Part]:
        """Wait for the next batch; in the worker thread.

        Returns:
            The next faces, in order, all of one height and width; empty once the queue is closed
            and empty.
        """
        with self._changed:
            while True:
                self._wait_for_more()
                parts = self._form_batch()
                if parts or (self._closed and not self._tickets):
                    return parts
                self._changed.wait()

    def take_full(self) -> list[Part]:
        """Take a full batch, if there is one, without waiting; in the worker thread.

        Returns:
            As `take`; empty if the batch would not be full.
        """
        with self._changed:
            return self._form_batch() if self.waiting >= self._max_batch else []

    def finish_batch(self) -> None:
        """Mark the oldest batch taken as finished; in the worker thread."""
        with self._changed:
            faces = sum(part.stop - part.start for part in self._running.popleft())
            self.running -= faces
            if faces > 1 and self.saturated is not _never:
                self._regroup_until = self._clock() + REGROUP_S

    def close(self) -> None:
        """Let `take` return an empty batch once the queue is empty; any thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def unfinished(self) -> list[Ticket]:
        """Return the tickets that wait or run; any thread."""
        with self._changed:
            return [*self._tickets, *(part.ticket for parts in self._running for part in parts)]

    def _wait_for_more(self) -> None:
        """Wait for a fuller batch, for a bounded time since the first arrival."""
        while self._tickets and self.waiting < self._max_batch and not self._closed:
            first, now = self._tickets[0], self._clock()
            saturated = self.saturated()
            most_s = min(MAX_DEFER_S, (first.deadline - first.submitted) / 4) if saturated else 0.0
            left_s = max(first.submitted + max(most_s, self._linger_s), self._regroup_until) - now
            if left_s <= 0:
                return
            # `saturated` must be polled: nothing notifies when it changes.
            self._changed.wait(min(left_s, _POLL_S) if saturated else left_s)

    def _form_batch(self) -> list[Part]:
        now, room = self._clock(), self._max_batch
        parts: list[Part] = []
        size = 0, 0
        while room and self._tickets:
            ticket = self._tickets[0]
            if not ticket.needed(now):
                self._tickets.popleft()  # its timer or its cancellation resolves it
                continue
            count, height, width = ticket.faces.shape
            if parts and size != (height, width):
                break  # different sizes cannot be stacked
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
