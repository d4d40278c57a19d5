"""The batched queue: faces of many requests become batches for one engine, and answers again.

    submit ─▶ bound ─▶ queue ─▶ batch ─▶ infer ─▶ answers ─▶ submit returns
              (loop)           (worker) (worker)  (loop)

Greedy: as soon as the engine is free it takes all that waits, up to the limit. A face alone is
served at once, and under load batches fill while the engine is busy. An engine that can take a
batch while it has another is given one as soon as it is full. One that shares its cores with the
decoder gives way to it, and for a moment to those just answered, for a fuller batch. The bound on
the queue, deadlines and answers live on the event loop, one worker thread computes; a finished
batch wakes the loop once. Who would wait too long is refused before, at the head of the request.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count, repeat
from typing import Any, cast

import numpy as np

from service.engine.contract import Begin, Explain, Faces, Infer
from service.engine.explanation import Explanation
from service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    QueueFull,
    ShuttingDown,
)
from service.queue.backend import Cancel, InferenceBackend
from service.queue.batch import Answered, BatchRunner, Begun, Outcome
from service.queue.face_queue import FaceQueue
from service.queue.ticket import Inference, OnResult, Part, Ticket
from service.telemetry.metrics import Metrics
from service.threads import start_computing

__all__ = ["HANG_S", "Batcher", "Inference"]

_RETRY_S = 1.0
HANG_S = 5.0
"""An engine that has not come back after so many seconds is taken for hanging."""


class Batcher(InferenceBackend):
    """Batches faces for `infer`, within bounds and deadlines, for as long as someone waits."""

    def __init__(
        self,
        infer: Infer,
        *,
        max_batch: int,
        queue_size: int,
        metrics: Metrics,
        begin: Begin | None = None,
        explain: Explain | None = None,
        linger_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        hang_s: float = HANG_S,
    ) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            infer: uint8[n, h, w] to float32[n, classes]; called from the worker thread alone.
                What it returns must be the caller's to keep.
            max_batch: Faces in a batch, 1 or more.
            queue_size: Faces that may wait, 1 or more.
            metrics: Where to record.
            begin: uint8[n, h, w] to a callable that waits for what `infer` would give, likewise;
                each is called once, in order, at most two are open, and `infer` may be called
                meanwhile. None where the engine has one batch at a time.
            explain: uint8[n, h, w] to n explanations, likewise; None where nobody asks for any.
            linger_s: How long a batch that is not full waits for more faces; best at 0.
            clock: Seconds that only go forward; deadlines are in its time.
            hang_s: A call of `infer` that takes longer makes the batcher unhealthy.

        Raises:
            ValueError: A size below 1 or a time below 0.
        """
        if min(max_batch, queue_size) < 1 or min(linger_s, hang_s) < 0:
            raise ValueError("batcher: sizes must be 1 or more, times 0 or more")
        self._clock, self._hang_s = clock, hang_s
        self._runner = BatchRunner(infer, begin, explain or _unexplained, clock)
        self._pipelined = begin is not None
        self._queue = FaceQueue(max_batch, linger_s, clock)
        self._queue_size = queue_size
        self._metrics = metrics
        self._queue_seconds = metrics.stage_seconds.labels("queue")
        self._inference_seconds = metrics.stage_seconds.labels("inference")
        metrics.queue_limit_faces.set(queue_size)
        metrics.batch_limit_faces.set(max_batch)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker: threading.Thread | None = None
        self._draining = False
        self._stopped = asyncio.Event()

    @property
    def healthy(self) -> bool:
        """Whether the worker lives and the engine does not hang; any thread may ask."""
        if self._worker is None or not self._worker.is_alive():
            return False
        started = self._runner.call_started
        return started is None or self._clock() - started <= self._hang_s

    def start(self) -> None:
        """Start the worker; once, on the event loop that will submit.

        Raises:
            RuntimeError: It was started before, or no event loop is running.
        """
        if self._worker is not None:
            raise RuntimeError("the batcher was started before")
        self._loop = asyncio.get_running_loop()
        self._worker = start_computing(self._work, "fer-batcher")

    def give_way_while(self, crowded: Callable[[], bool]) -> None:
        """Let a batch that is not full wait a little while the cores are busy making faces for it.

        For an engine that computes on these cores: then a small batch gains nobody anything, and
        costs more a face. Before the first submission.

        Args:
            crowded: Whether all cores are; the worker asks, often.
        """
        self._queue.crowded = crowded

    def enqueue(
        self, faces: Faces, deadline: float, explained: bool, on_result: OnResult
    ) -> Cancel:
        """Have faces classified; on the event loop that the batcher was started on.

        Args:
            faces: As `InferenceBackend.enqueue`, like all else.
            deadline: In the clock's time.
            explained: Whether each answer is to have its explanation.
            on_result: Called with the answers, or with what went wrong.
        """
        if faces.ndim != 3 or faces.dtype != np.uint8 or not len(faces):
            raise ValueError(f"faces are {faces.dtype}{list(faces.shape)}, expected uint8[n, h, w]")
        if self._loop is None:
            raise NotReady("The service is still starting.")
        now, count = self._clock(), len(faces)
        self._admit(count, deadline - now)
        pixels = np.ascontiguousarray(faces)
        ticket = Ticket(pixels, deadline, now, on_result, [None] * count, count, explained)
        ticket.timer = self._loop.call_later(deadline - now, self._expire, ticket)
        self._queue.put(ticket)
        self._metrics.queue_faces.set(self._queue.waiting)
        return partial(self._abandon, ticket)

    def _abandon(self, ticket: Ticket) -> None:
        """Take back what has not reached the engine, of whoever is gone."""
        ticket.abandon()
        self._metrics.abandoned_faces.inc(self._cancel(ticket))

    def _expire(self, ticket: Ticket) -> None:
        ticket.resolve(DeadlineExceeded("The answer did not come in time."))
        self._cancel(ticket)

    async def drain(self, timeout_s: float) -> None:
        """Refuse new faces, finish the accepted ones, stop the worker; on the event loop.

        What is not answered after `timeout_s` fails with `ShuttingDown`; the worker then ends
        as soon as the engine comes back.

        Args:
            timeout_s: How long accepted faces may take, in seconds.
        """
        self._draining = True
        self._queue.close()
        if self._worker is None:
            return
        try:
            async with asyncio.timeout(timeout_s):
                await self._stopped.wait()
            self._worker.join()
        except TimeoutError:
            error = "The service stopped before the face was classified."
            for ticket in self._queue.unfinished():
                ticket.resolve(ShuttingDown(error))
                self._cancel(ticket)

    def _cancel(self, ticket: Ticket) -> int:
        left = self._queue.withdraw(ticket)
        self._metrics.queue_faces.set(self._queue.waiting)
        return left

    def _admit(self, count: int, time_left_s: float) -> None:
        if self._draining:
            raise ShuttingDown("The service is shutting down and takes nothing new.")
        if time_left_s <= 0:
            raise DeadlineExceeded("The deadline had passed before the queue was reached.")
        if count > self._queue_size:
            raise QueueFull(f"{count} faces at once; the queue takes {self._queue_size}.")
        if self._queue.waiting + count > self._queue_size:
            detail = f"All {self._queue_size} places in the queue are taken; try again later."
            raise QueueFull(detail, _RETRY_S)

    def _deliver(self, outcome: Outcome) -> None:
        """Answer first, record afterwards, so that no metric can come in between; on the loop."""
        for answered in outcome.answered:
            self._fill(answered, outcome)
        faces = sum(len(answered.rows) for answered in outcome.answered)
        self._metrics.engine_busy_seconds.inc(outcome.busy_s)
        self._metrics.engine_failures.inc(outcome.failed_calls)
        self._metrics.queue_faces.set(self._queue.waiting)
        self._metrics.batch_faces.observe(faces)
        for answered in outcome.answered:
            self._queue_seconds.observe(outcome.started - answered.part.ticket.submitted)
            self._inference_seconds.observe(outcome.seconds)

    def _fill(self, answered: Answered, outcome: Outcome) -> None:
        ticket = answered.part.ticket
        queue_s = outcome.started - ticket.submitted
        whys: Iterable[Explanation | None] = answered.explanations or repeat(None)
        for place, row, why in zip(count(answered.part.start), answered.rows, whys, strict=False):
            if row is None:
                ticket.resolve(InferenceFailed("The network failed on this face."))
                self._cancel(ticket)
            else:
                ticket.fill(place, Inference(row, queue_s, outcome.seconds, why))

    def _work(self) -> None:
        """Be the worker thread."""
        running: Begun | None = None
        while running := running or self._begin(self._queue.take()):
            # A batch that is not full had better wait: for those who come meanwhile.
            ahead = self._begin(self._queue.take_full()) if self._pipelined else None
            outcome = self._runner.finish(running)
            running = ahead
            self._queue.come_back()
            self._call_loop(self._deliver, outcome)
            del outcome  # no pixels are kept while nobody comes
        self._call_loop(self._stopped.set)

    def _begin(self, parts: list[Part]) -> Begun | None:
        return self._runner.begin(parts) if parts else None

    def _call_loop(self, call: Callable[..., object], *args: Any) -> None:
        # A loop that was closed without a drain has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            cast(asyncio.AbstractEventLoop, self._loop).call_soon_threadsafe(call, *args)


def _unexplained(faces: Faces) -> list[Explanation]:
    raise NotImplementedError(f"nothing here explains {len(faces)} faces")
