"""Admission: refuses a request at its head if it could not be answered in time.

    head ─▶ uploading ─▶ at work ─▶ answered
            (received)   (decoder, queue, engine)

This is the only estimate of how long an answer will take. Decoder and queue have hard bounds, but
see a request only when it arrives there: an empty queue would admit a whole burst, and most of it
would be late after its pictures had been received and decoded. Here all admitted requests count,
in every stage, each by its faces: by the mean number until its own are known. Uploads count at most
as many times as there are requests at work, because a slow upload delays nobody. The rate at which
faces are answered is measured. A client waits for at most as many of another client's requests as
it has itself, since the decoders serve clients in turn.
"""

import time
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Protocol

from service.errors import Overloaded, QueueFull, ServiceError

# Exponential decay per answer: the last 200 count. Those are several batches, since all answers of
# a batch come at the same time.
_DECAY = 0.995
_SAME_BATCH_S = 1e-3  # answers closer than that are of one batch
# With the mean alone, half of the requests near the limit would be late.
_HEADROOM = 1.25
OVERLOAD_WAIT_S = 1.0
"""Longest predicted wait that is admitted during overload.

Normally the wait may be as long as the deadline, so that a burst is admitted. In a lasting
overload a long queue answers no more requests, makes every client wait, and remains when the
overload is over. Without overload the limit does not apply, however many clients there are.
"""
_UNMEASURED_RETRY_S = 1.0
_MAX_RETRY_S = 60.0


class OverloadSignal(Protocol):
    """Shares the overload state between the workers of one service."""

    def signal_overload(self) -> None:
        """Record that this worker is overloaded."""

    def seconds_since_overload(self) -> float:
        """Return the seconds since the last overload of any worker; infinity without one."""


class Admission:
    """Counts the admitted requests, and predicts when another one would be answered.

    Used on the event loop only.

    Attributes:
        uploading: Requests whose body is still being received.
        working: Requests with a body and without an answer.
    """

    def __init__(
        self,
        queue_size: int,
        clock: Callable[[], float] = time.monotonic,
        overload: OverloadSignal | None = None,
    ) -> None:
        """Start without requests and without a measurement.

        Args:
            queue_size: Most requests that may wait, besides one that is served.
            clock: Seconds, in the time of the deadlines.
            overload: Shares the overload state with other workers; None with a single worker.
        """
        self._overload = overload
        self._limit = queue_size + 1
        self._clock = clock
        self.uploading = self.working = 0
        self._working_by_client: dict[Hashable, int] = {}
        self._faces = 0.0  # of the requests at work; the mean number where it is not known yet
        self._answers = self._answered_faces = self._batches = self._seconds = 0.0
        self._overloaded = False  # from a refusal until the wait is short again
        self._since = 0.0  # time of the last answer, or of the first work after a pause

    def enter(self, deadline: float, client: Hashable = None) -> "AdmissionSlot":
        """Admit a request, if it can be answered in time.

        Args:
            deadline: When its answer is of no use any more, in the clock's time.
            client: Identifies the client; an unknown one, None, waits for all requests.

        Returns:
            Its admission slot, a context manager.

        Raises:
            QueueFull: No slot is free; says when to retry.
            Overloaded: The predicted wait exceeds the deadline; says when to retry.
        """
        if (refusal := self.refusal(deadline, client)) is not None:
            raise refusal
        return AdmissionSlot(self, client)

    def refusal(self, deadline: float, client: Hashable = None) -> QueueFull | Overloaded | None:
        """Return the error that `enter` would raise for a request; None if it would admit it.

        Args:
            deadline: As for `enter`.
            client: As for `enter`.
        """
        if self.working >= self._limit:
            return self._full()
        all_ahead, ahead = self._ahead(None), self._ahead(client)
        wait_s, most_s = self._predicted_s(ahead), deadline - self._clock()
        if self._overloaded:
            self._overloaded = self._predicted_s(all_ahead) > 0.5 * OVERLOAD_WAIT_S
        # A client with a small share of the queue does not cause the overload.
        causes_overload = 2 * ahead > all_ahead
        if causes_overload and (self._overloaded or self._other_worker_overloaded()):
            most_s = min(most_s, OVERLOAD_WAIT_S)
        if wait_s <= most_s:
            return None
        self.record_overload()
        return Overloaded("The wait would be too long; try again later.", wait_s - most_s)

    def begin(self, client: Hashable = None) -> None:
        """Count a request as at work instead of uploading.

        Args:
            client: Identifies the client.

        Raises:
            QueueFull: Other requests have taken all slots meanwhile.
        """
        if self.working >= self._limit:
            raise self._full()
        self.uploading -= 1
        if not self.working:
            self._since = self._clock()
        self.working += 1
        self._faces += self.mean_faces
        self._working_by_client[client] = self._working_by_client.get(client, 0) + 1

    @property
    def mean_faces(self) -> float:
        """The mean number of faces of a request; 1 before the first answer."""
        return self._answered_faces / self._answers if self._answers else 1.0

    def add_faces(self, faces: float) -> None:
        """Count so many more faces at work; fewer if it is negative."""
        self._faces += faces

    def end(self, served: bool, client: Hashable = None, faces: float = 1.0) -> None:
        """Count a request as finished.

        Args:
            client: Identifies the client.
            faces: How many of the faces at work were its.
            served: Whether it was completed. A request that was cancelled or refused is not
                measured; its time counts for the next one that is served.
        """
        self.working -= 1
        self._faces = self._faces - faces if self.working else 0.0
        self._working_by_client[client] -= 1
        if not self._working_by_client[client]:
            del self._working_by_client[client]
        if served:
            now = self._clock()
            passed_s = now - self._since
            self._answers = self._answers * _DECAY + 1.0
            self._answered_faces = self._answered_faces * _DECAY + faces
            self._batches = self._batches * _DECAY + (passed_s > _SAME_BATCH_S)
            self._seconds = self._seconds * _DECAY + passed_s
            self._since = now

    def record_overload(self) -> None:
        """Record a refusal: until the wait is short again, only short waits are admitted."""
        self._overloaded = True
        if self._overload is not None:
            self._overload.signal_overload()

    def _other_worker_overloaded(self) -> bool:
        # Clients keep their connections: those refused by one worker retry there, so the other
        # workers would not notice the overload and keep their long queues.
        return (
            self._overload is not None
            and self._overload.seconds_since_overload() < 0.5 * OVERLOAD_WAIT_S
        )

    def _full(self) -> QueueFull:
        self.record_overload()
        return QueueFull("All places are taken; try again later.", self._retry_after_s())

    def _ahead(self, client: Hashable) -> int:
        """Return how many requests another one of this client would wait for."""
        # Uploads count at most as many times as requests at work: slow ones must block nobody.
        ahead = self.working + min(self.uploading, self.working)
        if client is None:
            return ahead
        turns = self._working_by_client.get(client, 0) + 1
        return min(ahead, sum(min(turns, count) for count in self._working_by_client.values()))

    def _predicted_s(self, ahead: int) -> float:
        """Return in how many seconds another request would be answered.

        0 without requests ahead, and before the first measurement, which admitted requests give.
        """
        if not ahead or not self._answers:
            return 0.0
        # After the requests ahead comes one batch with the new one in it.
        batch_s = self._seconds / max(self._batches, 1.0)
        faces = ahead * self._faces / self.working if self.working else ahead * self.mean_faces
        return _HEADROOM * (faces * self._seconds / self._answered_faces + batch_s)

    def _retry_after_s(self) -> float:
        """Return in how many seconds the requests at work will be finished."""
        if not self._answers:
            return _UNMEASURED_RETRY_S
        return min(self.working * self._seconds / self._answers, _MAX_RETRY_S)


class AdmissionSlot:
    """The admission of one request; a context manager that ends it."""

    def __init__(self, admission: Admission, client: Hashable = None) -> None:
        """Create the slot; entering the block counts the request."""
        self._admission, self._client = admission, client
        self._received = False
        self._faces, self._known = 0.0, False

    def received(self) -> None:
        """Record that the body was received and work begins.

        Raises:
            QueueFull: Other requests have taken all slots meanwhile.
        """
        self._admission.begin(self._client)
        self._received, self._faces = True, self._admission.mean_faces

    def found(self, faces: int) -> None:
        """Record the number of faces of one of its pictures.

        A picture without a face counts as one: it was searched.
        """
        known = max(1, faces) + (self._faces if self._known else 0.0)
        self._admission.add_faces(known - self._faces)
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
        if isinstance(error, Overloaded | QueueFull):  # refused later, by decoder or queue
            self._admission.record_overload()
        if not self._received:
            self._admission.uploading -= 1
            return
        # A broken picture counts as served: it used the decoder.
        broken = isinstance(error, ServiceError) and error.status < 500
        self._admission.end(error is None or broken, self._client, self._faces)
