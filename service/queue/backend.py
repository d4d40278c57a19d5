"""What answers faces, wherever its engine is.

Not its duty: being one (`service.queue.batcher`, `service.remote.client`).
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from service.engine.contract import Faces
from service.queue.ticket import Inference, OnResult

Cancel = Callable[[], object]
"""Takes faces back for whoever is gone: they leave the queue if they still wait, and nobody is told
of their answer. Once, before it is there, on the event loop."""


class InferenceBackend(ABC):
    """A queue before an engine, of this process or of another; used on one event loop."""

    @property
    @abstractmethod
    def healthy(self) -> bool:
        """Whether faces are being answered."""

    def give_way_while(self, crowded: Callable[[], bool]) -> None:  # noqa: B027 - most need not
        """Let the engine wait a little for fuller batches while the decoders need its cores.

        Nothing to do for an engine on other cores.

        Args:
            crowded: Whether they do; any thread may ask.
        """

    @abstractmethod
    def enqueue(
        self, faces: Faces, deadline: float, explained: bool, on_result: OnResult
    ) -> Cancel:
        """Have faces classified, without waiting for it.

        They are admitted together or not at all, may travel in several batches, and fail
        together.

        Args:
            faces: uint8[n, h, w], 0-255, grey, one or more; not to be changed before the answer. Or
                how the worker makes them, where it is in this process.
            deadline: When the answer is of no use any more, by the monotonic clock.
            explained: Whether each answer is to have its explanation.
            on_result: Called once, on the loop, later, with what `submit` returns or raises.

        Returns:
            How to take them back.

        Raises:
            NotReady: The engine is not there.
            QueueFull: There is no room for them; says when to try again.
            Overloaded: There is room, but the wait would outlast the deadline; likewise.
            DeadlineExceeded: It had passed.
            ShuttingDown: Nothing new is taken any more.
            ValueError: They are not uint8[n, h, w], n at least 1.
        """

    @abstractmethod
    async def drain(self, timeout_s: float) -> None:
        """Refuse new faces and finish the accepted ones, in so many seconds."""

    async def submit(
        self, faces: Faces, deadline: float, explained: bool = False
    ) -> list[Inference]:
        """Have faces classified. Cancelling the caller takes them back.

        Args:
            faces: As `enqueue` takes them; or none.
            deadline: Likewise.
            explained: Likewise.

        Returns:
            An answer for each face, in order.

        Raises:
            DeadlineExceeded: The answer did not come in time.
            ShuttingDown: The queue was drained, or stopped before they were answered.
            InferenceFailed: The engine failed on one of them.
            ServiceError: Any kind that `enqueue` raises.
            ValueError: Likewise.
        """
        if isinstance(faces, np.ndarray) and faces.ndim and not len(faces):
            return []
        future: asyncio.Future[list[Inference] | BaseException]
        future = asyncio.get_running_loop().create_future()

        def on_result(answer: list[Inference] | BaseException) -> None:
            # An error is a result: nobody fetches the exception of a future whose task is gone.
            if not future.done():
                future.set_result(answer)

        cancel = self.enqueue(faces, deadline, explained, on_result)
        try:
            answer = await future
        except asyncio.CancelledError:
            cancel()
            raise
        if isinstance(answer, BaseException):
            raise answer
        return answer
