"""The engine of another process, as a worker sees it: an `InferenceBackend`.

    enqueue ─▶ FACES ─▶ socket ─▶ the engine's one queue ─▶ ANSWERS or FAILURE ─▶ on_result

What is enqueued in one turn of the event loop is written at once. Admission, batches and metrics
are the engine process's (`service.remote.host`), so that one bound holds for all workers
together. Not its duty: starting engines.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from service.engine.contract import EngineInfo, Faces
from service.errors import (
    DeadlineExceeded,
    InternalError,
    NotReady,
    QueueFull,
    ServiceError,
    ShuttingDown,
)
from service.queue.backend import Cancel, InferenceBackend
from service.queue.ticket import Inference, OnResult
from service.remote.protocol import (
    MAX_FACES_BYTES,
    Frame,
    FrameReader,
    Kind,
    Submission,
    TurnWriter,
    WireError,
    read_answers,
    read_failure,
    read_hello,
    write_cancel,
    write_faces,
)

_RECONNECT_S = 0.1
_HELLO_S = 10.0
# An engine process is replaced, loaded and warm again in about as much.
_RETRY_S = 3.0

_log = logging.getLogger(__name__)


class RemoteBackend(InferenceBackend):
    """Has faces classified by the engine, of several, that has least to do; on one event loop."""

    def __init__(
        self,
        sockets: Sequence[Path],
        well: Callable[[int], bool],
        queue_size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect nowhere before `start`.

        Args:
            sockets: Where each engine listens, or will.
            well: Whether the engine of that place among `sockets` answers, as far as is known.
            queue_size: Faces that may wait at one engine, 1 or more.
            clock: Seconds that only go forward, the same in all processes.
        """
        self._well, self._queue_size, self._clock = well, queue_size, clock
        self._sockets = sockets
        self._links: dict[int, _Link] = {}
        self._connecting: list[asyncio.Task[None]] = []
        self._introduced = asyncio.Event()
        self._hello: EngineInfo | None = None
        self._draining = False

    @property
    def info(self) -> EngineInfo:
        """What the first engine said of itself; there once `start` has returned."""
        assert self._hello is not None  # the caller waited
        return self._hello

    @property
    def healthy(self) -> bool:
        """Whether any engine is connected and answers."""
        return bool(self._usable())

    async def start(self) -> None:
        """Connect, now and whenever a connection is lost; returns with the first engine's hello.

        Raises:
            TimeoutError: No engine introduced itself in time; there was one when this process was
                started.
        """
        self._connecting = [
            asyncio.create_task(self._keep_connected(place)) for place in range(len(self._sockets))
        ]
        async with asyncio.timeout(_HELLO_S):
            await self._introduced.wait()

    def enqueue(
        self, faces: Faces, deadline: float, explained: bool, on_result: OnResult
    ) -> Cancel:
        """Have faces classified by an engine.

        Args:
            faces: As `InferenceBackend.enqueue` takes them, like all else; copied.
            deadline: In the clock's time.
            explained: Whether each answer is to have its explanation.
            on_result: Called with the answers; or with what the engine's batcher raised, or with
                `NotReady` where the engine died.
        """
        if faces.ndim != 3 or faces.dtype != np.uint8 or not len(faces):
            raise ValueError(f"faces are {faces.dtype}{list(faces.shape)}, expected uint8[n, h, w]")
        if self._draining:
            raise ShuttingDown("The service is shutting down and takes nothing new.")
        if deadline <= self._clock():
            raise DeadlineExceeded("The deadline had passed before the queue was reached.")
        link = self._least_busy()
        # The engine decides who may wait; this only keeps the socket from becoming a second queue.
        if faces.nbytes > MAX_FACES_BYTES or link.faces + len(faces) > 2 * self._queue_size:
            raise QueueFull("The queue's places are taken; try again later.", _RETRY_S)
        submission = Submission(np.ascontiguousarray(faces), deadline, explained)
        return link.ask(submission, deadline - self._clock(), on_result)

    async def drain(self, timeout_s: float) -> None:
        """Refuse new faces, wait for the answers that are due, and disconnect.

        Args:
            timeout_s: How long that may take, in seconds; who waits longer gets `ShuttingDown`.
        """
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for link in list(self._links.values()):
                    await link.answered.wait()
        for task in self._connecting:
            task.cancel()
        for link in list(self._links.values()):
            link.end(ShuttingDown("The service stopped before the face was classified."))

    def _least_busy(self) -> "_Link":
        links = self._usable()
        if not links:
            raise NotReady("The network does not answer; try again shortly.", _RETRY_S)
        return min(links, key=lambda link: link.faces)

    def _usable(self) -> "list[_Link]":
        """Return the connections that bring answers."""
        items = self._links.items()
        return [link for place, link in items if self._well(place) and not link.lost.is_set()]

    async def _keep_connected(self, place: int) -> None:
        loop = asyncio.get_running_loop()
        complained = False
        while True:
            with contextlib.suppress(OSError):  # the engine is not there, or not yet
                _, link = await loop.create_unix_connection(
                    partial(_Link, loop), str(self._sockets[place])
                )
                hello = await link.hello
                if hello is not None and self._accept(hello, complained):
                    self._links[place] = link
                    self._introduced.set()
                    await link.lost.wait()
                    del self._links[place]
                elif hello is not None:
                    complained = True
                    link.end(NotReady("The network changed."))
            await asyncio.sleep(_RECONNECT_S)

    def _accept(self, hello: EngineInfo, complained: bool) -> bool:
        """Whether this engine's answers mean what the first one's did."""
        self._hello = self._hello or hello
        same = hello.manifest == self._hello.manifest
        if not same and not complained:
            _log.error("the engine serves another checkpoint now; start the service again")
        return same


class _Link(asyncio.Protocol):
    """One connection to an engine.

    Attributes:
        hello: The engine's; None if the connection ends before it.
        lost: Set when it has ended.
        answered: Set while nothing is due.
        faces: How many are at the engine.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reader, self._numbers = FrameReader(), count(1)
        self._due: dict[int, _Due] = {}
        self.hello: asyncio.Future[EngineInfo | None] = loop.create_future()
        self.lost, self.answered = asyncio.Event(), asyncio.Event()
        self.answered.set()
        self.faces = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._writer = TurnWriter(self._transport, self._loop)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except WireError:
            _log.exception("cannot understand the engine")
            self.end(InternalError("The service failed."))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        self.end(NotReady("The network ended before it had answered; try again.", _RETRY_S))
        if not self.hello.done():
            self.hello.set_result(None)
        self.lost.set()

    def ask(self, submission: Submission, left_s: float, on_result: OnResult) -> Cancel:
        """Send faces; their answer goes to `on_result`. Returns what takes them back."""
        number, faces = next(self._numbers), len(submission.faces)
        # The engine watches the deadline too, as long as its loop turns.
        timer = self._loop.call_later(left_s, self._expire, number)
        self._due[number] = _Due(faces, on_result, timer)
        self.answered.clear()
        self.faces += faces
        self._writer.write(write_faces(number, submission))
        return partial(self._cancel, number)

    def end(self, error: ServiceError) -> None:
        """Disconnect; whoever waits gets the error."""
        self._transport.abort()
        for number in list(self._due):
            self._resolve(number, error)

    def _cancel(self, number: int) -> OnResult | None:
        """Forget a submission, and have the engine do so; returns who waits for it."""
        on_result = self._forget(number)
        if on_result is not None:
            self._writer.write(write_cancel(number))
        return on_result

    def _expire(self, number: int) -> None:
        if (on_result := self._cancel(number)) is not None:
            on_result(DeadlineExceeded("The answer did not come in time."))

    def _forget(self, number: int) -> OnResult | None:
        due = self._due.pop(number, None)
        if due is None:  # it was taken back meanwhile
            return None
        due.timer.cancel()
        self.faces -= due.faces
        if not self._due:
            self.answered.set()
        return due.on_result

    def _take(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.ANSWERS:
                self._resolve(frame.number, read_answers(frame.payload))
            case Kind.FAILURE:
                self._resolve(frame.number, read_failure(frame.payload))
            case Kind.HELLO if not self.hello.done():
                self.hello.set_result(read_hello(frame.payload))
            case _:
                raise WireError(f"a frame of kind {frame.kind.name} from an engine")

    def _resolve(self, number: int, answer: list[Inference] | ServiceError) -> None:
        """Answer a submission; one that was taken back meanwhile has nobody to tell."""
        if (on_result := self._forget(number)) is not None:
            on_result(answer)


class _Due(NamedTuple):
    """A submission at the engine: how many faces, whom to tell, what gives it up."""

    faces: int
    on_result: OnResult
    timer: asyncio.TimerHandle
