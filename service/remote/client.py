"""The client of engines in other processes: an `InferenceBackend` for a worker.

    enqueue ─▶ FACES ─▶ socket ─▶ the engine's one queue ─▶ ANSWERS or FAILURE ─▶ on_result

Submissions of one event-loop iteration are written together. The engine process
(`service.remote.host`) admits, batches and records metrics, so that one bound holds for all
workers together.
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
    CoalescingWriter,
    Frame,
    FrameReader,
    Kind,
    Submission,
    WireError,
    read_answers,
    read_failure,
    read_hello,
    write_cancel,
    write_faces,
)
from training.model.prior import Adjustment

HELLO_TIMEOUT_S = 10.0
_RECONNECT_S = 0.1
# An engine process is restarted, loaded and warm again in about this time.
_RETRY_S = 3.0

_log = logging.getLogger(__name__)


class RemoteBackend(InferenceBackend):
    """Submits faces to the engine with the fewest faces pending; used on one event loop."""

    def __init__(
        self,
        sockets: Sequence[Path],
        engine_healthy: Callable[[int], bool],
        queue_size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the client; `start` connects.

        Args:
            sockets: The path on which each engine listens, or will.
            engine_healthy: Whether the engine of this index in `sockets` answers, as last reported.
            queue_size: Faces that may wait at one engine, 1 or more.
            clock: Monotonic, in seconds, the same in all processes.
        """
        self._engine_healthy, self._queue_size, self._clock = engine_healthy, queue_size, clock
        self._sockets = sockets
        self._connections: dict[int, _EngineConnection] = {}
        self._connecting: list[asyncio.Task[None]] = []
        self._hello_received = asyncio.Event()
        self._hello: EngineInfo | None = None
        self._draining = False

    @property
    def info(self) -> EngineInfo:
        """The first engine's description; available once `start` has returned."""
        assert self._hello is not None  # the caller waited
        return self._hello

    @property
    def healthy(self) -> bool:
        """Whether any engine is connected and answers."""
        return bool(self._usable())

    async def start(self, timeout_s: float = HELLO_TIMEOUT_S) -> None:
        """Connect, and reconnect whenever a connection is lost; returns after the first hello.

        Args:
            timeout_s: How long the first hello may take, in seconds.

        Raises:
            TimeoutError: No engine sent its hello in time, although one ran when this process was
                started.
        """
        self._connecting = [
            asyncio.create_task(self._keep_connected(index)) for index in range(len(self._sockets))
        ]
        async with asyncio.timeout(timeout_s):
            await self._hello_received.wait()

    def enqueue(
        self,
        faces: Faces,
        deadline: float,
        explain_under: Adjustment | None,
        on_result: OnResult,
    ) -> Cancel:
        """Submit faces to an engine, as `InferenceBackend.enqueue`.

        Args:
            faces: uint8[n, h, w]; copied.
            deadline: In the clock's time.
            explain_under: The adjustment to explain under; None without explanations.
            on_result: Called with the answers, with the error that the engine's batcher raised, or
                with `NotReady` if the engine died.
        """
        if faces.ndim != 3 or faces.dtype != np.uint8 or not len(faces):
            raise ValueError(f"faces are {faces.dtype}{list(faces.shape)}, expected uint8[n, h, w]")
        if self._draining:
            raise ShuttingDown("The service is shutting down and takes nothing new.")
        if deadline <= self._clock():
            raise DeadlineExceeded("The deadline had passed before the queue was reached.")
        connection = self._least_busy()
        # The engine bounds its queue; this bound keeps the socket from becoming a second queue.
        if faces.nbytes > MAX_FACES_BYTES or connection.faces + len(faces) > 2 * self._queue_size:
            raise QueueFull("The queue's places are taken; try again later.", _RETRY_S)
        submission = Submission(np.ascontiguousarray(faces), deadline, explain_under)
        return connection.send(submission, deadline - self._clock(), on_result)

    async def drain(self, timeout_s: float) -> None:
        """Refuse new faces, wait for the pending answers, and disconnect.

        Args:
            timeout_s: How long that may take, in seconds; later answers become `ShuttingDown`.
        """
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for connection in list(self._connections.values()):
                    await connection.answered.wait()
        for task in self._connecting:
            task.cancel()
        for connection in list(self._connections.values()):
            connection.end(ShuttingDown("The service stopped before the face was classified."))

    def _least_busy(self) -> "_EngineConnection":
        connections = self._usable()
        if not connections:
            raise NotReady("The network does not answer; try again shortly.", _RETRY_S)
        return min(connections, key=lambda connection: connection.faces)

    def _usable(self) -> "list[_EngineConnection]":
        """Return the connections to healthy engines."""
        items = self._connections.items()
        return [
            one for index, one in items if self._engine_healthy(index) and not one.lost.is_set()
        ]

    async def _keep_connected(self, index: int) -> None:
        loop = asyncio.get_running_loop()
        logged = False
        while True:
            with contextlib.suppress(OSError):  # the engine does not run, or not yet
                _, connection = await loop.create_unix_connection(
                    partial(_EngineConnection, loop), str(self._sockets[index])
                )
                hello = await connection.hello
                if hello is not None and self._accept(hello, logged):
                    self._connections[index] = connection
                    self._hello_received.set()
                    await connection.lost.wait()
                    del self._connections[index]
                elif hello is not None:
                    logged = True
                    connection.end(NotReady("The network changed."))
            await asyncio.sleep(_RECONNECT_S)

    def _accept(self, hello: EngineInfo, logged: bool) -> bool:
        """Return whether this engine serves the same checkpoint as the first one."""
        self._hello = self._hello or hello
        same = hello.manifest == self._hello.manifest
        if not same and not logged:
            _log.error("the engine serves another checkpoint now; start the service again")
        return same


class _EngineConnection(asyncio.Protocol):
    """One connection to an engine.

    Attributes:
        hello: The engine's; None if the connection ends before it.
        lost: Set when the connection has ended.
        answered: Set while no answer is pending.
        faces: How many faces are pending.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._reader, self._numbers = FrameReader(), count(1)
        self._pending: dict[int, _Pending] = {}
        self.hello: asyncio.Future[EngineInfo | None] = loop.create_future()
        self.lost, self.answered = asyncio.Event(), asyncio.Event()
        self.answered.set()
        self.faces = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._writer = CoalescingWriter(self._transport, self._loop)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._handle(frame)
        except WireError:
            _log.exception("cannot understand the engine")
            self.end(InternalError("The service failed."))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        self.end(NotReady("The network ended before it had answered; try again.", _RETRY_S))
        if not self.hello.done():
            self.hello.set_result(None)
        self.lost.set()

    def send(self, submission: Submission, left_s: float, on_result: OnResult) -> Cancel:
        """Send faces; their answer goes to `on_result`. Returns how to cancel them."""
        number, faces = next(self._numbers), len(submission.faces)
        # The engine enforces the deadline too, unless its loop is blocked.
        timer = self._loop.call_later(left_s, self._expire, number)
        self._pending[number] = _Pending(faces, on_result, timer)
        self.answered.clear()
        self.faces += faces
        self._writer.write(write_faces(number, submission))
        return partial(self._cancel, number)

    def end(self, error: ServiceError) -> None:
        """Disconnect; every pending submission gets the error."""
        self._transport.abort()
        for number in list(self._pending):
            self._resolve(number, error)

    def _cancel(self, number: int) -> OnResult | None:
        """Cancel a submission here and at the engine; returns its `on_result`."""
        on_result = self._forget(number)
        if on_result is not None:
            self._writer.write(write_cancel(number))
        return on_result

    def _expire(self, number: int) -> None:
        if (on_result := self._cancel(number)) is not None:
            on_result(DeadlineExceeded("The answer did not come in time."))

    def _forget(self, number: int) -> OnResult | None:
        pending = self._pending.pop(number, None)
        if pending is None:  # it was cancelled meanwhile
            return None
        pending.timer.cancel()
        self.faces -= pending.faces
        if not self._pending:
            self.answered.set()
        return pending.on_result

    def _handle(self, frame: Frame) -> None:
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
        """Answer a submission, unless it was cancelled meanwhile."""
        if (on_result := self._forget(number)) is not None:
            on_result(answer)


class _Pending(NamedTuple):
    """A submission at the engine: its faces, its callback, and the timer of its deadline."""

    faces: int
    on_result: OnResult
    timer: asyncio.TimerHandle
