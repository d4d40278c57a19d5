"""The batched queue: combines the faces of many requests into batches for one engine.

    submit ─▶ bound ─▶ queue ─▶ batch ─▶ infer ─▶ answers ─▶ submit returns
              (loop)           (worker) (worker)  (loop)

Batching is greedy: a free engine takes all waiting faces, up to the limit. A single face is served
at once; under load, batches fill while the engine is busy. An engine that accepts a batch while it
computes another gets one as soon as it is full. An engine that shares its cores with the decoder
waits for the decoder, and briefly for the next requests of clients just answered, to get a fuller
batch. The event loop handles the bound of the queue, deadlines and answers; one worker thread
computes; a finished batch wakes the loop once. Requests that would wait too long are refused
earlier, at their head.
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

from service.engine.contract import Begin, Emotions, Explain, Faces, Infer
from service.engine.explanation import Explanation
from service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    QueueFull,
    ShuttingDown,
)
from service.queue.backend import Cancel, InferenceBackend
from service.queue.batch import BatchRunner, Outcome, PartResult, StartedBatch
from service.queue.face_queue import FaceQueue
from service.queue.ticket import Inference, OnResult, Part, Ticket
from service.telemetry.metrics import Metrics
from service.threads import start_computing
from training.model.prior import Adjustment

__all__ = ["HANG_TIMEOUT_S", "Batcher", "Inference"]

_RETRY_S = 1.0
HANG_TIMEOUT_S = 5.0
"""An engine whose call takes more seconds counts as hanging."""


class Batcher(InferenceBackend):
    """Batches faces for `infer`, within bounds and deadlines."""

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
        hang_s: float = HANG_TIMEOUT_S,
    ) -> None:
        """Create the queue; `start` starts the worker.

        Args:
            infer: uint8[n, h, w] to float32[n, classes]; called from the worker thread alone.
                It must not reuse the array that it returns.
            max_batch: Faces in a batch, 1 or more.
            queue_size: Faces that may wait, 1 or more.
            metrics: Where to record.
            begin: uint8[n, h, w] to a function that waits for the result of `infer`. Those
                functions are called once each, in order; at most two are open, and `infer` may be
                called meanwhile. None if the engine computes one batch at a time.
            explain: uint8[n, h, w] and int64[n], an emotion a face, to n explanations, in the
                worker thread; None without any.
            linger_s: How long a batch that is not full waits for more faces; 0 is best.
            clock: Monotonic, in seconds; deadlines are in its time.
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
        """Whether the worker runs and the engine does not hang; thread-safe."""
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

    def defer_batches_while(self, saturated: Callable[[], bool]) -> None:
        """Let a batch that is not full wait briefly while all cores decode pictures.

        For an engine on the same cores: a small batch would cost more per face, and make no
        answer earlier. Call it before the first submission.

        Args:
            saturated: Whether all cores decode; the worker thread polls it.
        """
        self._queue.saturated = saturated

    def enqueue(
        self,
        faces: Faces,
        deadline: float,
        explain_under: Adjustment | None,
        on_result: OnResult,
    ) -> Cancel:
        """Submit faces, as `InferenceBackend.enqueue`; on the event loop that called `start`.

        Args:
            faces: uint8[n, h, w].
            deadline: In the clock's time.
            explain_under: The adjustment to explain under; None without explanations.
            on_result: Called with the answers or the error.
        """
        if faces.ndim != 3 or faces.dtype != np.uint8 or not len(faces):
            raise ValueError(f"faces are {faces.dtype}{list(faces.shape)}, expected uint8[n, h, w]")
        if self._loop is None:
            raise NotReady("The service is still starting.")
        now, count = self._clock(), len(faces)
        self._admit(count, deadline - now)
        pixels = np.ascontiguousarray(faces)
        ticket = Ticket(pixels, deadline, now, on_result, [None] * count, count, explain_under)
        ticket.timer = self._loop.call_later(deadline - now, self._expire, ticket)
        self._queue.put(ticket)
        self._metrics.queue_faces.set(self._queue.waiting)
        return partial(self._cancel, ticket)

    def _cancel(self, ticket: Ticket) -> None:
        """Cancel for a client that disconnected."""
        ticket.cancel()
        self._metrics.abandoned_faces.inc(self._withdraw(ticket))

    def _expire(self, ticket: Ticket) -> None:
        ticket.resolve(DeadlineExceeded("The answer did not come in time."))
        self._withdraw(ticket)

    async def drain(self, timeout_s: float) -> None:
        """Refuse new faces, finish the accepted ones, stop the worker; on the event loop.

        Faces not answered after `timeout_s` fail with `ShuttingDown`; the worker then ends when
        the engine's call returns.

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
                self._withdraw(ticket)

    def _withdraw(self, ticket: Ticket) -> int:
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
        """Resolve the tickets first, then record, so that metrics delay no answer; on the loop."""
        for answered in outcome.answered:
            self._store(answered, outcome)
        faces = sum(len(answered.rows) for answered in outcome.answered)
        self._metrics.engine_busy_seconds.inc(outcome.busy_s)
        self._metrics.engine_failures.inc(outcome.failed_calls)
        self._metrics.queue_faces.set(self._queue.waiting)
        self._metrics.batch_faces.observe(faces)
        for answered in outcome.answered:
            self._queue_seconds.observe(outcome.started - answered.part.ticket.submitted)
            self._inference_seconds.observe(outcome.seconds)

    def _store(self, answered: PartResult, outcome: Outcome) -> None:
        ticket = answered.part.ticket
        queue_s = outcome.started - ticket.submitted
        explanations: Iterable[Explanation | None] = answered.explanations or repeat(None)
        for face, row, explanation in zip(
            count(answered.part.start), answered.rows, explanations, strict=False
        ):
            if row is None:
                ticket.resolve(InferenceFailed("The network failed on this face."))
                self._withdraw(ticket)
            else:
                ticket.set_answer(face, Inference(row, queue_s, outcome.seconds, explanation))

    def _work(self) -> None:
        """Run the worker thread."""
        running: StartedBatch | None = None
        while running := running or self._begin(self._queue.take()):
            # Only a full batch: another one can still get more faces meanwhile.
            ahead = self._begin(self._queue.take_full()) if self._pipelined else None
            outcome = self._runner.finish(running)
            running = ahead
            self._queue.finish_batch()
            self._call_loop(self._deliver, outcome)
            del outcome  # frees the pixels while the queue is empty
        self._call_loop(self._stopped.set)

    def _begin(self, parts: list[Part]) -> StartedBatch | None:
        return self._runner.begin(parts) if parts else None

    def _call_loop(self, call: Callable[..., object], *args: Any) -> None:
        # The loop may have been closed without a drain: then no caller waits.
        with contextlib.suppress(RuntimeError):
            cast(asyncio.AbstractEventLoop, self._loop).call_soon_threadsafe(call, *args)


def _unexplained(faces: Faces, emotions: Emotions) -> list[Explanation]:
    raise NotImplementedError(f"no explainer for {len(faces)} faces")
