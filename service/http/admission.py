"""Who is let in: refused at the head, before the body, is who could not be answered in time.

    head ─▶ uploading ─▶ at work ─▶ answered
            (received)   (decoder, queue, engine)

The one estimate of how long an answer will take. Decoder and queue have hard bounds of their own,
on what waits and until when, but see a request only once it is there: of a burst all would be let
in by an empty queue, and most be late when their pictures had been received and decoded for
nothing. Here all requests count, wherever they are; of uploads as many at most as are at work,
because one that trickles holds nobody up. How fast their faces leave is measured, whatever holds
them up; a request counts for the usual number of faces until its own are found.
A client waits for no more of another's requests than it has itself, since the decoders take turns.
"""

import time
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Protocol

from service.errors import Overloaded, QueueFull, ServiceError

# What an answer's weight shrinks to with each later one: the last two hundred count, which is
# several batches, since all answers of one come at the same moment.
_KEEP = 0.995
_SAME_MOMENT_S = 1e-3  # apart, and answers are still of one batch
# Of a mean, half of those at the edge would be late.
_HEADROOM = 1.25
CALM_S = 1.0
"""How long the wait may be while there is too much to do.

A queue as long as the deadline lets a burst in; where more comes than can be answered it gains
nothing, makes everybody wait that long, and goes on doing so when the rush is over. Who is only as
many as before, however many, never notices.
"""
_UNMEASURED_RETRY_S = 1.0
_MAX_RETRY_S = 60.0


class OverloadSignal(Protocol):
    """How the workers of one service tell each other that there is too much to do."""

    def signal_overload(self) -> None:
        """Say so."""

    def seconds_since_overload(self) -> float:
        """Return how long ago any of them said so, in seconds; very long where none did."""


class Admission:
    """Counts the requests in the house, and predicts when one more would be answered.

    On the event loop alone.

    Attributes:
        uploading: Requests whose body is not here yet.
        working: Those that have one and no answer.
    """

    def __init__(
        self,
        queue_size: int,
        clock: Callable[[], float] = time.monotonic,
        overload: OverloadSignal | None = None,
    ) -> None:
        """Begin empty, without a measurement.

        Args:
            queue_size: Most requests that may wait, besides one that is served.
            clock: Seconds, as deadlines count them.
            overload: How several workers tell each other of it; None where there are none.
        """
        self._overload = overload
        self._limit = queue_size + 1
        self._clock = clock
        self.uploading = self.working = 0
        self._of_client: dict[Hashable, int] = {}  # of those at work
        self._faces = 0.0  # of those at work; of each as many as is known, or the usual number
        self._answers = self._answered_faces = self._moments = self._seconds = 0.0
        self._rush = False  # somebody was refused, and the wait is not yet short again
        self._since = 0.0  # when the latest answer was given, or work began after a pause

    def enter(self, deadline: float, client: Hashable = None) -> "AdmissionSlot":
        """Let a request in, if it can be answered in time.

        Args:
            deadline: When its answer is of no more use, in the clock's time.
            client: Who asks; None, where nobody knows, waits for all.

        Returns:
            Its place, a context manager.

        Raises:
            QueueFull: No place is free; says when to try again.
            Overloaded: The wait would outlast the deadline; likewise.
        """
        if (refusal := self.refusal(deadline, client)) is not None:
            raise refusal
        return AdmissionSlot(self, client)

    def refusal(self, deadline: float, client: Hashable = None) -> QueueFull | Overloaded | None:
        """Say why `enter` would not let a request in; None if it would.

        Args:
            deadline: As of `enter`.
            client: Likewise.
        """
        if self.working >= self._limit:
            return self._full()
        everybody, ahead = self._ahead(None), self._ahead(client)
        wait_s, most_s = self._predicted_s(ahead), deadline - self._clock()
        if self._rush:
            self._rush = self._predicted_s(everybody) > 0.5 * CALM_S
        # Most of the queue is others': not this client's to keep short.
        rushes = 2 * ahead > everybody
        if rushes and (self._rush or self._rush_elsewhere()):
            most_s = min(most_s, CALM_S)
        if wait_s <= most_s:
            return None
        self.rush()
        return Overloaded("The wait would be too long; try again later.", wait_s - most_s)

    def begin(self, client: Hashable = None) -> None:
        """Count one less that uploads and one more at work, and time it.

        Args:
            client: Who asked.

        Raises:
            QueueFull: Others were quicker and took all places.
        """
        if self.working >= self._limit:
            raise self._full()
        self.uploading -= 1
        if not self.working:
            self._since = self._clock()
        self.working += 1
        self._faces += self.usual_faces
        self._of_client[client] = self._of_client.get(client, 0) + 1

    @property
    def usual_faces(self) -> float:
        """The mean number of faces of a request; 1 before the first answer."""
        return self._answered_faces / self._answers if self._answers else 1.0

    def recount(self, faces: float) -> None:
        """Count so many faces more at work; fewer where it is negative."""
        self._faces += faces

    def end(self, served: bool, client: Hashable = None, faces: float = 1.0) -> None:
        """Count one at work less.

        Args:
            client: Who asked.
            faces: How many of the faces at work were its.
            served: Whether all was done for it. Nothing is learnt from who left or was refused on
                the way; the time that it took counts for the next one that was served.
        """
        self.working -= 1
        self._faces = self._faces - faces if self.working else 0.0
        self._of_client[client] -= 1
        if not self._of_client[client]:
            del self._of_client[client]
        if served:
            now = self._clock()
            passed_s = now - self._since
            self._answers = self._answers * _KEEP + 1.0
            self._answered_faces = self._answered_faces * _KEEP + faces
            self._moments = self._moments * _KEEP + (passed_s > _SAME_MOMENT_S)
            self._seconds = self._seconds * _KEEP + passed_s
            self._since = now

    def rush(self) -> None:
        """Note that somebody was refused: until the wait is short again it is kept short."""
        self._rush = True
        if self._overload is not None:
            self._overload.signal_overload()

    def _rush_elsewhere(self) -> bool:
        # Who is refused by one worker asks it again, and never the others, on whose connections
        # everybody waits: they would go on with the queue that they had.
        return self._overload is not None and self._overload.seconds_since_overload() < 0.5 * CALM_S

    def _full(self) -> QueueFull:
        self.rush()
        return QueueFull("All places are taken; try again later.", self._retry_after_s())

    def _ahead(self, client: Hashable) -> int:
        """Return how many requests one more of this client would wait for."""
        # No more uploads count than there are at work: those that trickle must keep nobody out.
        ahead = self.working + min(self.uploading, self.working)
        if client is None:
            return ahead
        turns = self._of_client.get(client, 0) + 1
        return min(ahead, sum(min(turns, count) for count in self._of_client.values()))

    def _predicted_s(self, ahead: int) -> float:
        """Return in how many seconds one more would be answered; 0 where nobody is ahead.

        And before the first measurement: whoever is let in by a wrong one corrects it.
        """
        if not ahead or not self._answers:
            return 0.0
        # After those ahead, a batch that the new one shares with whoever comes next.
        batch_s = self._seconds / max(self._moments, 1.0)
        faces = ahead * self._faces / self.working if self.working else ahead * self.usual_faces
        return _HEADROOM * (faces * self._seconds / self._answered_faces + batch_s)

    def _retry_after_s(self) -> float:
        """Return in how many seconds those at work will have been served."""
        if not self._answers:
            return _UNMEASURED_RETRY_S
        return min(self.working * self._seconds / self._answers, _MAX_RETRY_S)


class AdmissionSlot:
    """One request's place in the house; free again when its block ends."""

    def __init__(self, admission: Admission, client: Hashable = None) -> None:
        """Take none before the block begins."""
        self._admission, self._client = admission, client
        self._received = False
        self._faces, self._known = 0.0, False

    def received(self) -> None:
        """Say that the body is here, and work begins.

        Raises:
            QueueFull: Too many others were quicker.
        """
        self._admission.begin(self._client)
        self._received, self._faces = True, self._admission.usual_faces

    def found(self, faces: int) -> None:
        """Say how many faces its pictures have; each call adds those of one picture.

        A picture without any counts as one: it was searched.
        """
        known = max(1, faces) + (self._faces if self._known else 0.0)
        self._admission.recount(known - self._faces)
        self._faces, self._known = known, True

    def __enter__(self) -> "AdmissionSlot":
        self._admission.uploading += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, Overloaded | QueueFull):  # decoder or queue knew better
            self._admission.rush()
        if not self._received:
            self._admission.uploading -= 1
            return
        # A broken picture was served too: it took its turn.
        broken = isinstance(error, ServiceError) and error.status < 500
        self._admission.end(error is None or broken, self._client, self._faces)
