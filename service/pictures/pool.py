"""The threads that decode pictures: few, and with a bounded number of pictures before them.

Not its duty: what the threads do.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from service.errors import DeadlineExceeded, Overloaded, QueueFull
from service.threads import start_computing

T = TypeVar("T")

# How much of the running mean one more picture is: the last twenty or so count.
_WEIGHT = 0.05
STUCK_S = 30.0
"""A picture that takes a thread longer is taken for one that never ends."""


@dataclass(frozen=True, slots=True)
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


@dataclass(slots=True, eq=False)
class _Job:
    """A piece of work on its way.

    Attributes:
        work: What to do.
        asked: When it came, in the clock's time.
        deadline: When its result is of no more use, likewise.
        future: What came of it; an error is a result here. Settled on the event loop.
        begun: A thread has taken it. The thread writes, the loop reads.
        dropped: Nobody waits, and it is counted no more. The loop writes, a thread reads.
    """

    work: Callable[[], Any]
    asked: float
    deadline: float
    future: asyncio.Future[Done[Any] | BaseException]
    begun: bool = False
    dropped: bool = False


class DecodePool:
    """Runs work in a few threads, and refuses at once what would wait too long for one.

    Its own threads instead of an executor's: what waits is dropped with its client, and several
    results wake the event loop once: 0.04 to 0.09 CPU ms less a picture.
    """

    def __init__(
        self, threads: int, queue_size: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start no thread yet; they start with the first work.

        Args:
            threads: Most that run at once.
            queue_size: Most pieces of work under way, waiting ones included.
            clock: Seconds, as deadlines count them; any thread may call it.
        """
        self._threads = threads
        self._limit = queue_size + threads
        self._clock = clock
        self._under_way = 0
        self._mean_s = 0.0
        self._began: dict[int, float] = {}  # by thread, while it works
        self._waiting: SimpleQueue[_Job | None] = SimpleQueue()
        self._finished: deque[tuple[_Job, Done[Any] | BaseException]] = deque()
        self._waking = False  # the loop will look at what is finished
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def healthy(self) -> bool:
        """Whether some thread is free or will be; any thread may ask."""
        if not self._began:
            return True
        now = self._clock()
        stuck = sum(now - began > STUCK_S for began in list(self._began.values()))
        return stuck < self._threads

    @property
    def idle(self) -> bool:
        """Whether no thread works; any thread may ask."""
        return not self._began

    def crowded(self) -> bool:
        """Whether work waits for a thread, so that all of them are busy; any thread may ask."""
        return not self._waiting.empty()

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
        now = self._clock()
        self._admit(deadline - now)
        loop = self._loop or self._start()
        job = _Job(work, now, deadline, loop.create_future())
        self._under_way += 1
        self._waiting.put(job)
        try:
            outcome = await job.future
        except asyncio.CancelledError:
            if not job.begun:
                job.dropped, job.work = True, _nothing  # the picture goes now, not at its turn
                self._under_way -= 1
            raise
        if isinstance(outcome, Done):
            self._mean_s += _WEIGHT * (outcome.spent_s - self._mean_s)
            return outcome
        raise outcome

    def close(self) -> None:
        """Take no more work; what has not begun is dropped. On the event loop."""
        with contextlib.suppress(Empty):
            while (job := self._waiting.get_nowait()) is not None:
                job.future.cancel()
        for _ in range(self._threads):
            self._waiting.put(None)

    def _start(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        for number in range(self._threads):
            start_computing(partial(self._work, self._loop), f"decode-{number}")
        return self._loop

    def _admit(self, left_s: float) -> None:
        wait_s = max(0, self._under_way - self._threads + 1) * self._mean_s / self._threads
        if self._under_way >= self._limit:
            raise QueueFull("Too many pictures wait to be decoded; try again later.", wait_s)
        if wait_s > left_s:
            raise Overloaded("Decoding would not begin in time; try again later.", wait_s)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Be one of the threads."""
        while (job := self._waiting.get()) is not None:
            job.begun = True
            if job.dropped:
                continue
            self._finished.append((job, self._attempt(job)))
            if not self._waking:
                self._waking = True
                with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits
                    loop.call_soon_threadsafe(self._deliver)
            del job  # or it would keep the last picture until the next one comes

    def _attempt(self, job: _Job) -> Done[Any] | BaseException:
        began, thread = self._clock(), threading.get_ident()
        if began > job.deadline:
            return DeadlineExceeded("The picture waited too long to be decoded.")
        self._began[thread] = began
        try:
            return Done(job.work(), began - job.asked, self._clock() - began)
        # Even the panic of a library in another language must not end the thread.
        except BaseException as error:  # noqa: BLE001
            return error
        finally:
            del self._began[thread]

    def _deliver(self) -> None:
        """Answer whoever waits for what is finished; on the event loop."""
        self._waking = False  # first: what finishes from now on wakes the loop again
        while self._finished:
            job, outcome = self._finished.popleft()
            self._under_way -= not job.dropped
            if not job.future.done():
                job.future.set_result(outcome)


def _nothing() -> None:
    """Stand in for work that was dropped."""
