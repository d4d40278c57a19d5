"""The interface that classifies faces, in this process or in another."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from service.engine.contract import Faces
from service.queue.ticket import Inference, OnResult
from training.model.prior import Adjustment

Cancel = Callable[[], object]
"""Cancels a submission: waiting faces leave the queue, and `on_result` is not called. To be called
at most once, before the result, on the event loop."""


class InferenceBackend(ABC):
    """A queue in front of an engine of this process or of another; used on one event loop."""

    @property
    @abstractmethod
    def healthy(self) -> bool:
        """Whether it answers."""

    def defer_batches_while(self, saturated: Callable[[], bool]) -> None:  # noqa: B027 - optional
        """Let the engine wait briefly for fuller batches while the decoders need its cores.

        By default nothing: for an engine on other cores.

        Args:
            saturated: Whether the decoders use all cores; thread-safe.
        """

    @abstractmethod
    def enqueue(
        self,
        faces: Faces,
        deadline: float,
        explain_under: Adjustment | None,
        on_result: OnResult,
    ) -> Cancel:
        """Submit faces for classification, without waiting for the result.

        They are admitted together or not at all, may be split over several batches, and fail
        together.

        Args:
            faces: uint8[n, h, w], 0-255, grey, one or more; must not change before the result.
            deadline: When the answer is of no use any more, by the monotonic clock.
            explain_under: How the probabilities will be adjusted: each answer includes the
                explanation of the most probable emotion then. None without explanations.
            on_result: Called once, later, on the loop, with what `submit` returns or raises.

        Returns:
            A function that cancels the submission.

        Raises:
            NotReady: No engine is available.
            QueueFull: The queue has no room for them; says when to try again.
            DeadlineExceeded: The deadline has passed.
            ShuttingDown: The queue accepts nothing any more.
            ValueError: They are not uint8[n, h, w], n at least 1.
        """

    @abstractmethod
    async def drain(self, timeout_s: float) -> None:
        """Refuse new faces, and finish the accepted ones within `timeout_s` seconds."""

    async def submit(
        self, faces: Faces, deadline: float, explain_under: Adjustment | None = None
    ) -> list[Inference]:
        """Classify faces. Cancelling the calling task cancels the submission.

        Args:
            faces: As for `enqueue`, but n may be 0.
            deadline: As for `enqueue`.
            explain_under: As for `enqueue`.

        Returns:
            An answer for each face, in order. Probabilities are not adjusted.

        Raises:
            DeadlineExceeded: The answer did not come in time.
            ShuttingDown: The queue was drained, or stopped before they were answered.
            InferenceFailed: The engine failed on one of them.
            ServiceError: As `enqueue` raises.
            ValueError: As `enqueue` raises.
        """
        if isinstance(faces, np.ndarray) and faces.ndim and not len(faces):
            return []
        future: asyncio.Future[list[Inference] | BaseException]
        future = asyncio.get_running_loop().create_future()

        def on_result(answer: list[Inference] | BaseException) -> None:
            # An error is set as a result: asyncio would log an exception that is never retrieved.
            if not future.done():
                future.set_result(answer)

        cancel = self.enqueue(faces, deadline, explain_under, on_result)
        try:
            answer = await future
        except asyncio.CancelledError:
            cancel()
            raise
        if isinstance(answer, BaseException):
            raise answer
        return answer
