"""The engine process's end of the socket: its batcher, for workers to submit to.

    FACES ─▶ batcher.enqueue ─▶ ANSWERS or FAILURE

When a worker takes a submission back or is gone, its faces leave the queue. Nothing here waits, so
no submission needs a task, which would cost more than all else that is done for one; and what is
answered in one turn of the event loop, as a batch is, is written at once: all workers' requests
come through this one loop. Not its duty: batching (`service.queue.batcher`), the process
(`service.server.engine_process`).
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
    Frame,
    FrameReader,
    Kind,
    Submission,
    TurnWriter,
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
        """Keep what is served.

        Args:
            batcher: Started.
            hello: Said to each worker first.
        """
        self.batcher, self._hello = batcher, write_hello(hello)
        self._callers: set[_Caller] = set()
        self.deserted = asyncio.Event()
        """Set while no worker is connected."""
        self.deserted.set()

    def protocol(self) -> asyncio.Protocol:
        """Return what the loop's `create_unix_server` wants for each connection."""
        return _Caller(self)

    async def close(self) -> None:
        """Write what was answered, and disconnect everybody; after the batcher's drain."""
        for caller in list(self._callers):
            await caller.close()

    def greet(self, caller: "_Caller") -> bytes:
        """Note a connection; returns its first frame."""
        self._callers.add(caller)
        self.deserted.clear()
        return self._hello

    def part_from(self, caller: "_Caller") -> None:
        """Note a connection's end."""
        self._callers.discard(caller)
        if not self._callers:
            self.deserted.set()


class _Caller(asyncio.Protocol):
    """A worker's connection."""

    def __init__(self, host: EngineHost) -> None:
        self._host = host
        self._reader = FrameReader()
        self._due: dict[int, Cancel] = {}
        self._lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._writer = TurnWriter(self._transport, asyncio.get_running_loop())
        self._writer.write(self._host.greet(self))

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except WireError:
            _log.exception("cannot understand a worker")
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - as asyncio calls it
        for cancel in self._due.values():
            cancel()
        self._due.clear()
        self._host.part_from(self)
        self._lost.set()

    async def close(self) -> None:
        """Let what was answered be written, then end."""
        self._writer.flush()
        self._transport.close()
        await self._lost.wait()

    def _take(self, frame: Frame) -> None:
        if frame.kind is Kind.CANCEL:
            if (cancel := self._due.pop(frame.number, None)) is not None:
                cancel()
        elif frame.kind is Kind.FACES and frame.number not in self._due:
            self._enqueue(frame.number, read_faces(frame.payload))
        else:
            raise WireError(f"a frame of kind {frame.kind.name} from a worker")

    def _enqueue(self, number: int, submission: Submission) -> None:
        try:
            self._due[number] = self._host.batcher.enqueue(*submission, partial(self._tell, number))
        except Exception as error:  # noqa: BLE001 - the edge of this process
            self._writer.write(_failure(number, error))

    def _tell(self, number: int, answer: list[Inference] | BaseException) -> None:
        del self._due[number]
        if isinstance(answer, BaseException):
            self._writer.write(_failure(number, answer))
        else:
            self._writer.write(write_answers(number, answer))


def _failure(number: int, error: BaseException) -> bytes:
    """Return the frame that tells of it; what nobody expected stays here, in the log."""
    if isinstance(error, ServiceError):
        return write_failure(number, error)
    _log.error("a submission failed", exc_info=error)
    return write_failure(number, InternalError("The service failed."))
