"""One submission on its way: its faces, who waits for them, and the answers as they come.

Not its duty: when its turn is (`service.queue.face_queue`).
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, cast

from service.engine.contract import Faces, Probabilities
from service.engine.explanation import Explanation

OnResult = Callable[["list[Inference] | BaseException"], object]
"""Takes the answers of all faces of a submission, in order, or why there are none."""


@dataclass(frozen=True, slots=True)
class Inference:
    """The engine's answer for one face.

    Attributes:
        probabilities: float32[classes], each 0 to 1.
        queue_s: Seconds from submission until its batch went to the engine.
        inference_s: Seconds from then until its batch was answered.
        explanation: Why; None where nobody asked.
    """

    probabilities: Probabilities
    queue_s: float
    inference_s: float
    explanation: Explanation | None = None


@dataclass(slots=True, eq=False)
class Ticket:
    """One submission on its way.

    Attributes:
        faces: uint8[n, h, w], C-contiguous.
        deadline: When nobody needs the answer any more, in the clock's time.
        submitted: When it came, likewise.
        on_result: Given the answers or what went wrong; called on the event loop, once, and never
            after the ticket was withdrawn.
        answers: A place for each face, filled on the event loop.
        missing: How many of them are empty.
        explained: Whether the answers are to say why.
        taken: How many faces have left the queue; under the queue's lock.
        timer: Resolves it when its deadline has come; None where nothing does.
        settled: Nobody waits for it any more.
    """

    faces: Faces
    deadline: float
    submitted: float
    on_result: OnResult
    answers: list[Inference | None]
    missing: int
    explained: bool = False
    taken: int = 0
    timer: asyncio.TimerHandle | None = None
    settled: bool = False

    def wanted(self, now: float) -> bool:
        """Whether anybody still waits for the answer; any thread may ask."""
        return now < self.deadline and not self.settled

    def fill(self, place: int, inference: Inference) -> None:
        """Keep one face's answer, and resolve the ticket with the last; on the event loop."""
        self.answers[place] = inference
        self.missing -= 1
        if not self.missing:
            self.resolve(cast(list[Inference], self.answers))  # no place is empty any more

    def resolve(self, answer: list[Inference] | BaseException) -> None:
        """OnResult the ticket unless it is settled; on the event loop, the only place that does."""
        if not self.settled:
            self.abandon()
            self.on_result(answer)

    def abandon(self) -> None:
        """Say that nobody waits for it any more; on the event loop."""
        self.settled = True
        if self.timer is not None:
            self.timer.cancel()


class Part(NamedTuple):
    """Those faces of a ticket, from `start` to before `stop`, that travel in one batch."""

    ticket: Ticket
    start: int
    stop: int
