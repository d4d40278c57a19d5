"""The engine process's end of the socket: its batcher, for workers to submit to.

    FACES ─▶ batcher.submit ─▶ ANSWERS or FAILURE

Each submission is a task, which ends when a worker takes it back or is gone, so that its faces
leave the queue. What is answered in one turn of the event loop is written at once. Not its duty:
batching (`service.inference.batcher`), the process (`service.processes.engine`).
"""

import asyncio
import logging
from typing import cast

from service.errors import InternalError, ServiceError
from service.inference.classifier import Classifier
from service.inference.remote_wire import (
    Frame,
    FrameReader,
    Hello,
    Kind,
    Submission,
    WireError,
    read_faces,
    write_answers,
    write_failure,
    write_hello,
)
from service.inference.turn_writer import TurnWriter

_log = logging.getLogger(__name__)


class RemoteHost:
    """Serves a batcher to other processes; on the batcher's event loop."""

    def __init__(self, batcher: Classifier, hello: Hello) -> None:
        """Keep what is served.

        Args:
            batcher: Started.
            hello: Said to each worker first.
        """
        self._batcher, self._hello = batcher, write_hello(hello)
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

    async def answer(self, number: int, submission: Submission) -> bytes:
        """Classify faces; returns the frame that tells of it."""
        try:
            inferences = await self._batcher.submit(
                submission.faces, submission.deadline, submission.explained
            )
            return write_answers(number, inferences)
        except ServiceError as error:
            return write_failure(number, error)
        except Exception:  # noqa: BLE001 - the edge of this process
            _log.exception("a submission failed")
            return write_failure(number, InternalError("The service failed."))


class _Caller(asyncio.Protocol):
    """A worker's connection."""

    def __init__(self, host: RemoteHost) -> None:
        self._host = host
        self._reader = FrameReader()
        self._tasks: dict[int, asyncio.Task[None]] = {}
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
        for task in self._tasks.values():
            task.cancel()
        self._host.part_from(self)
        self._lost.set()

    async def close(self) -> None:
        """Let what is being answered be written, then end."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._writer.flush()
        self._transport.close()
        await self._lost.wait()

    def _take(self, frame: Frame) -> None:
        if frame.kind is Kind.CANCEL:
            if (task := self._tasks.get(frame.number)) is not None:
                task.cancel()
        elif frame.kind is Kind.FACES and frame.number not in self._tasks:
            submission = read_faces(frame.payload)
            task = asyncio.get_running_loop().create_task(self._serve(frame.number, submission))
            self._tasks[frame.number] = task
            task.add_done_callback(lambda _: self._tasks.pop(frame.number))
        else:
            raise WireError(f"a frame of kind {frame.kind.name} from a worker")

    async def _serve(self, number: int, submission: Submission) -> None:
        self._writer.write(await self._host.answer(number, submission))
