"""The server in an engine process: workers submit faces to its batcher over a socket.

    FACES ─▶ batcher.enqueue ─▶ ANSWERS or FAILURE

When a worker cancels a submission or disconnects, its faces leave the queue. All workers' requests
pass through this one event loop, so it does little for each: a submission needs no task, which
would cost more than all the rest, and the answers of one loop iteration, such as those of a batch,
are written together.
"""

import asyncio
import logging
from functools import partial
from typing import cast

from service.engine.contract import EngineInfo
from service.errors import InternalError, ServiceError
from service.queue.backend import Cancel, InferenceBackend
from service.queue.ticket import Inference
from service.remote.protocol import (
    CoalescingWriter,
    Frame,
    FrameReader,
    Kind,
    Submission,
    WireError,
    read_faces,
    write_answers,
    write_failure,
    write_hello,
)

_log = logging.getLogger(__name__)


class EngineHost:
    """Serves a batcher to other processes; on the batcher's event loop."""

    def __init__(self, batcher: InferenceBackend, hello: EngineInfo) -> None:
        """Create the server.

        Args:
            batcher: Started.
            hello: The first message to each worker.
        """
        self.batcher, self._hello = batcher, write_hello(hello)
        self._connections: set[_WorkerConnection] = set()
        self.idle = asyncio.Event()
        """Set while no worker is connected."""
        self.idle.set()

    def protocol(self) -> asyncio.Protocol:
        """Return a protocol for one connection, for the loop's `create_unix_server`."""
        return _WorkerConnection(self)

    async def close(self) -> None:
        """Flush the answers and disconnect all workers; after the batcher's drain."""
        for connection in list(self._connections):
            await connection.close()

    def on_connect(self, connection: "_WorkerConnection") -> bytes:
        """Register a connection; returns its first frame."""
        self._connections.add(connection)
        self.idle.clear()
        return self._hello

    def on_disconnect(self, connection: "_WorkerConnection") -> None:
        """Unregister a connection."""
        self._connections.discard(connection)
        if not self._connections:
            self.idle.set()


class _WorkerConnection(asyncio.Protocol):
    """A worker's connection."""

    def __init__(self, host: EngineHost) -> None:
        self._host = host
        self._reader = FrameReader()
        self._pending: dict[int, Cancel] = {}
        self._lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._writer = CoalescingWriter(self._transport, asyncio.get_running_loop())
        self._writer.write(self._host.on_connect(self))

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._handle(frame)
        except WireError:
            _log.exception("cannot understand a worker")
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        for cancel in self._pending.values():
            cancel()
        self._pending.clear()
        self._host.on_disconnect(self)
        self._lost.set()

    async def close(self) -> None:
        """Flush the answers, then disconnect."""
        self._writer.flush()
        self._transport.close()
        await self._lost.wait()

    def _handle(self, frame: Frame) -> None:
        if frame.kind is Kind.CANCEL:
            if (cancel := self._pending.pop(frame.number, None)) is not None:
                cancel()
        elif frame.kind is Kind.FACES and frame.number not in self._pending:
            self._enqueue(frame.number, read_faces(frame.payload))
        else:
            raise WireError(f"a frame of kind {frame.kind.name} from a worker")

    def _enqueue(self, number: int, submission: Submission) -> None:
        try:
            self._pending[number] = self._host.batcher.enqueue(
                *submission, partial(self._on_result, number)
            )
        except Exception as error:  # noqa: BLE001 - the edge of this process
            self._writer.write(_failure(number, error))

    def _on_result(self, number: int, answer: list[Inference] | BaseException) -> None:
        del self._pending[number]
        if isinstance(answer, BaseException):
            self._writer.write(_failure(number, answer))
        else:
            self._writer.write(write_answers(number, answer))


def _failure(number: int, error: BaseException) -> bytes:
    """Return the frame for an error; an unexpected one is logged and sent as `InternalError`."""
    if isinstance(error, ServiceError):
        return write_failure(number, error)
    _log.error("a submission failed", exc_info=error)
    return write_failure(number, InternalError("The service failed."))
