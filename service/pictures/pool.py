"""The threads that decode pictures: few, and with a bounded number of pictures before them.

Not its duty: what the threads do.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.errors import DeadlineExceeded, Overloaded, QueueFull

T = TypeVar("T")

# How much of the running mean one more picture is: the last twenty or so count.
_WEIGHT = 0.05
STUCK_S = 30.0
"""A picture that takes a thread longer is taken for one that never ends."""


@dataclass(frozen=True)
class Done(Generic[T]):
    """A piece of work and what it took.

    Attributes:
        result: What the work returned.
        waited_s: Seconds until a thread took it.
        spent_s: Seconds in the thread.
    """

    result: T
    waited_s: float
    spent_s: float


class DecodePool:
    """Runs work in a few threads, and refuses at once what would wait too long for one."""

    def __init__(
        self, threads: int, queue_size: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start no thread yet; they start as work comes.

        Args:
            threads: Most that run at once.
            queue_size: Most pieces of work under way, waiting ones included.
            clock: Seconds, as deadlines count them; any thread may call it.
        """
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._threads = threads
        self._limit = queue_size + threads
        self._clock = clock
        self._under_way = 0
        self._mean_s = 0.0
        self._began: dict[int, float] = {}  # by thread, while it works

    @property
    def healthy(self) -> bool:
        """Whether some thread is free or will be; any thread may ask."""
        now = self._clock()
        stuck = sum(now - began > STUCK_S for began in list(self._began.values()))
        return stuck < self._threads

    @property
    def idle(self) -> bool:
        """Whether no thread works; any thread may ask."""
        return not self._began

    async def run(self, work: Callable[[], T], deadline: float) -> Done[T]:
        """Run `work` in a thread. On the event loop; cancelling drops what has not begun.

        What has begun cannot be cut short: it keeps its thread, and counts as under way, until it
        returns, though nobody may be waiting any more.

        Args:
            work: Takes no argument; whatever it raises is raised here.
            deadline: When its result is of no more use, in the clock's time.

        Returns:
            Its result and times.

        Raises:
            QueueFull: Too much is waiting already.
            Overloaded: A thread is not expected to be free before the deadline.
            DeadlineExceeded: None was.
        """
        self._admit(deadline)
        self._under_way += 1
        loop = asyncio.get_running_loop()
        future = self._executor.submit(self._timed, work, self._clock(), deadline)
        future.add_done_callback(lambda _: self._leave(loop))
        done = await asyncio.wrap_future(future)
        self._mean_s += _WEIGHT * (done.spent_s - self._mean_s)
        return done

    def close(self) -> None:
        """Take no more work; what has not begun is dropped."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        """Count one less, on the loop; called in the thread, or where it was cancelled."""
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody counts any more
            loop.call_soon_threadsafe(self._count_down)

    def _count_down(self) -> None:
        self._under_way -= 1

    def _admit(self, deadline: float) -> None:
        wait_s = max(0, self._under_way - self._threads + 1) * self._mean_s / self._threads
        if self._under_way >= self._limit:
            raise QueueFull("Too many pictures wait to be decoded; try again later.", wait_s)
        if self._clock() + wait_s > deadline:
            raise Overloaded("Decoding would not begin in time; try again later.", wait_s)

    def _timed(self, work: Callable[[], T], asked: float, deadline: float) -> Done[T]:
        began = self._clock()
        if began > deadline:
            raise DeadlineExceeded("The picture waited too long to be decoded.")
        thread = threading.get_ident()
        self._began[thread] = began
        try:
            result = work()
        finally:
            del self._began[thread]
        return Done(result, began - asked, self._clock() - began)
