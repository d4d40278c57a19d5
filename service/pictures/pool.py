"""The threads that decode pictures: few, with bounded memory, and for every client in turn.

A picture is weighed by its head before it is decoded. Light ones are decoded as their client's
turn comes. Heavy ones also wait until there is memory for them, and while any is decoded there is a
thread more, so that light ones go on beside them.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from service.errors import DeadlineExceeded, QueueFull, TooManyPixels
from service.pictures.cost import Cost
from service.threads import start_computing

T = TypeVar("T")

STUCK_S = 30.0
"""A picture that takes a thread longer is taken for one that never ends."""
_RETRY_S = 1.0
_NOTHING = Cost(0, 0.0)


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
    """A piece of work on its way; its state changes under the pool's lock.

    Attributes:
        work: What to do.
        weigh: Says what that will cost; None where it is known.
        client: Who wants it.
        asked: When it came, in the clock's time.
        deadline: When its result is of no more use, likewise.
        future: What came of it; an error is a result here. Settled on the event loop.
        cost: What it costs, once it is weighed.
        reserved: Its memory is.
        begun: A thread does it.
        dropped: Nobody waits, and it is counted no more.
    """

    work: Callable[[], Any]
    weigh: Callable[[], Cost] | None
    client: Hashable
    asked: float
    deadline: float
    future: asyncio.Future[Done[Any] | BaseException]
    cost: Cost = _NOTHING
    reserved: bool = False
    begun: bool = False
    dropped: bool = False


@dataclass(slots=True)
class _Queue:
    """What one client waits for: heavy work that was weighed, and all else; each in order."""

    heavy: deque[_Job] = field(default_factory=deque)
    other: deque[_Job] = field(default_factory=deque)


class DecodePool:
    """Runs work in a few threads, each client's in turn, within a budget of memory.

    Its own threads instead of an executor's: what waits is dropped with its client, and several
    results wake the event loop once: 0.04 to 0.09 CPU ms less a picture.
    """

    def __init__(
        self,
        threads: int,
        queue_size: int,
        max_bytes: int = 1 << 40,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start no thread yet; they start with the first work.

        Args:
            threads: Most that run at once; beside heavy work one more.
            queue_size: Most pieces of work under way, waiting ones included.
            max_bytes: Of memory, for all heavy work that runs at once.
            clock: Seconds, as deadlines count them; any thread may call it.
        """
        self._threads = threads
        self._limit = queue_size + threads
        self._max_bytes = max_bytes
        self._clock = clock
        self._under_way = 0
        self._began: dict[int, float] = {}  # by thread, while it works
        self._lock = threading.Lock()
        self._changed, self._spare = (threading.Condition(self._lock) for _ in range(2))
        self._queues: dict[Hashable, _Queue] = {}  # of who waits; whose turn is next comes first
        self._waiting = 0
        self._heavy = self._held_bytes = 0  # of what runs
        self._closed = False
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

    def saturated(self) -> bool:
        """Whether work waits for a thread, so that all of them are busy; any thread may ask."""
        return self._waiting > 0

    async def run(
        self,
        work: Callable[[], T],
        deadline: float,
        weigh: Callable[[], Cost] | None = None,
        client: Hashable = None,
    ) -> Done[T]:
        """Run `work` in a thread. On the event loop; cancelling drops what has not begun.

        What has begun cannot be cut short: it keeps its thread, and counts as under way, until it
        returns, though nobody may be waiting any more.

        Args:
            work: Takes no argument; whatever it raises is raised here.
            deadline: When its result is of no more use, in the clock's time.
            weigh: Says what `work` will cost, quickly, and raises what is wrong with it; called in
                a thread, once. None for light work.
            client: Who wants it: each has its turn.

        Returns:
            Its result and times.

        Raises:
            QueueFull: Too much is waiting already.
            TooManyPixels: It would take more memory than there is for all.
            DeadlineExceeded: No thread was free before the deadline.
        """
        if self._under_way >= self._limit:
            raise QueueFull("Too many pictures wait to be decoded; try again later.", _RETRY_S)
        loop = self._loop or self._start()
        job = _Job(work, weigh, client, self._clock(), deadline, loop.create_future())
        self._under_way += 1
        with self._lock:
            self._put(job)
        try:
            outcome = await job.future
        except asyncio.CancelledError:
            self._drop(job)
            raise
        if isinstance(outcome, Done):
            return outcome
        raise outcome

    def close(self) -> None:
        """Take no more work; what has not begun is dropped. On the event loop."""
        with self._lock:
            for queue in self._queues.values():
                for job in (*queue.heavy, *queue.other):
                    job.future.cancel()
            self._queues.clear()
            self._waiting = 0
            self._closed = True
            self._changed.notify_all()
            self._spare.notify()

    def _start(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        for number in range(self._threads + 1):
            spare = number == self._threads
            start_computing(partial(self._serve, self._loop, spare), f"decode-{number}")
        return self._loop

    def _drop(self, job: _Job) -> None:
        with self._lock:
            if not job.begun:
                # The picture goes now, not at its turn.
                job.dropped, job.work, job.weigh = True, _nothing, None
                self._under_way -= 1

    def _put(self, job: _Job) -> None:
        """Let a job wait at the end of its client's; under the lock."""
        queue = self._queues.setdefault(job.client, _Queue())
        (queue.other if job.cost.light else queue.heavy).append(job)
        self._waiting += 1
        self._changed.notify()
        if self._heavy:
            self._spare.notify()

    def _take(self, spare: bool) -> _Job | None:
        """Wait for the next job; None when there will be none. In a thread.

        Args:
            spare: Only light ones, and only beside heavy ones.
        """
        with self._lock:
            while not self._closed:
                if (job := self._next(spare)) is not None:
                    return job
                (self._spare if spare else self._changed).wait()
        return None

    def _next(self, spare: bool) -> _Job | None:
        """Return the first job of whoever's turn it is; under the lock."""
        if spare and not self._heavy:
            return None
        light = spare
        for client, queue in self._queues.items():
            if queue.heavy and not light:
                first = queue.heavy[0]
                if first.dropped or self._held_bytes + first.cost.bytes <= self._max_bytes:
                    return self._pop(client, queue.heavy)
                light = True  # nobody heavy overtakes it
            if queue.other:
                return self._pop(client, queue.other)
        return None

    def _pop(self, client: Hashable, jobs: deque[_Job]) -> _Job:
        job, queue = jobs.popleft(), self._queues.pop(client)
        self._waiting -= 1
        if queue.heavy or queue.other:
            self._queues[client] = queue  # everybody else comes first now
        if not (job.cost.light or job.dropped):
            job.reserved = True
            self._heavy += 1
            self._held_bytes += job.cost.bytes
            self._spare.notify()
        return job

    def _serve(self, loop: asyncio.AbstractEventLoop, spare: bool) -> None:
        """Be one of the threads."""
        while (job := self._take(spare)) is not None:
            if (outcome := self._do(job)) is not None:
                self._finished.append((job, outcome))
                if not self._waking:
                    self._waking = True
                    with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits
                        loop.call_soon_threadsafe(self._deliver)
            del job, outcome  # or they would keep the last picture until the next one comes

    def _do(self, job: _Job) -> Done[Any] | BaseException | None:
        """Weigh a job, then do it; None if it is to wait, or nobody waits for it."""
        if (weigh := job.weigh) is not None:
            job.weigh = None
            if (error := self._weigh(job, weigh)) is not None:
                return error
            if not job.cost.light:
                with self._lock:
                    self._put(job)
                return None
        try:
            return self._attempt(job)
        finally:
            if job.reserved:
                with self._lock:
                    self._heavy -= 1
                    self._held_bytes -= job.cost.bytes
                    self._changed.notify_all()

    def _weigh(self, job: _Job, weigh: Callable[[], Cost]) -> BaseException | None:
        """Find out what a job costs. Returns what is wrong with it."""
        try:
            job.cost = weigh()
        # Even the panic of a library in another language must not end the thread.
        except BaseException as error:  # noqa: BLE001
            return error
        if job.cost.bytes <= self._max_bytes:
            return None
        return TooManyPixels(
            f"Decoding the image would take {job.cost.bytes >> 20} MiB, and there are "
            f"{self._max_bytes >> 20}; send a smaller one, or a baseline JPEG."
        )

    def _attempt(self, job: _Job) -> Done[Any] | BaseException | None:
        with self._lock:
            if job.dropped:
                return None
            job.begun = True
        began, thread = self._clock(), threading.get_ident()
        if began > job.deadline:
            return DeadlineExceeded("The picture waited too long to be decoded.")
        self._began[thread] = began
        try:
            return Done(job.work(), began - job.asked, self._clock() - began)
        except BaseException as error:  # noqa: BLE001 - as above
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
