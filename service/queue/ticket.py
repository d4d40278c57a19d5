"""A submission in the queue: its faces, its deadline, and the answers so far."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

from service.engine.contract import Faces, Probabilities
from service.engine.explanation import Explanation
from training.model.prior import Adjustment

OnResult = Callable[["list[Inference] | BaseException"], object]
"""Receives the answers for all faces of a submission, in order, or the error."""


@dataclass(frozen=True, slots=True)
class Inference:
    """The engine's answer for one face.

    Attributes:
        probabilities: float32[classes], each 0 to 1.
        queue_s: Seconds from submission until its batch went to the engine.
        inference_s: Seconds from then until its batch was answered.
        explanation: None unless requested.
    """

    probabilities: Probabilities
    queue_s: float
    inference_s: float
    explanation: Explanation | None = None


@dataclass(slots=True, eq=False)
class Ticket:
    """A submission.

    Attributes:
        faces: uint8[n, h, w], C-contiguous.
        deadline: When the answer is of no use any more, in the clock's time.
        submitted: When it was submitted, in the clock's time.
        on_result: Receives the answers or the error; called once, on the event loop, and never
            after a cancellation.
        answers: One per face, set on the event loop; None until then.
        missing: How many of them are None.
        explain_under: The adjustment under which each face's emotion is chosen that is explained;
            None for answers without explanations.
        taken: How many faces have left the queue; guarded by the queue's lock.
        timer: Resolves the ticket at its deadline; None without one.
        done: It was resolved or cancelled.
    """

    faces: Faces
    deadline: float
    submitted: float
    on_result: OnResult
    answers: list[Inference | None]
    missing: int
    explain_under: Adjustment | None = None
    taken: int = 0
    timer: asyncio.TimerHandle | None = None
    done: bool = False

    def needed(self, now: float) -> bool:
        """Whether the answer is still needed; thread-safe."""
        return now < self.deadline and not self.done

    def set_answer(self, face: int, inference: Inference) -> None:
        """Store the answer for one face; the last one resolves the ticket. On the event loop."""
        self.answers[face] = inference
        self.missing -= 1
        if not self.missing:
            self.resolve(cast(list[Inference], self.answers))  # none is None any more

    def resolve(self, answer: list[Inference] | BaseException) -> None:
        """Call `on_result` unless the ticket is done; on the event loop."""
        if not self.done:
            self.cancel()
            self.on_result(answer)

    def cancel(self) -> None:
        """Mark the ticket as done, without a result; on the event loop."""
        self.done = True
        if self.timer is not None:
            self.timer.cancel()


class Part(NamedTuple):
    """The faces [start, stop) of a ticket, which are in one batch."""

    ticket: Ticket
    start: int
    stop: int
