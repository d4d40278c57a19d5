"""One batch through the engine: stacked, begun, finished, checked, and after a failure halved.

Faces that are to be explained share batches with all others; then they go to the engine's
`explain` as well, one batch again, and by themselves: nobody else's forward pass gets slower.

Not its duty: which faces are in the batch (`service.queue.face_queue`), answering
(`service.queue.batcher`).
"""

import logging
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np

from service.engine.contract import Begin, Explain, Faces, Finish, Infer, Probabilities
from service.engine.explanation import Explanation
from service.queue.ticket import Part

Rows = list[Probabilities | None]

_log = logging.getLogger(__name__)


class Answered(NamedTuple):
    """What the engine said of a part's faces.

    Attributes:
        part: Which faces.
        rows: A row a face, None where the engine failed on that face.
        explanations: One a face; None where nobody asked.
    """

    part: Part
    rows: Rows
    explanations: list[Explanation] | None = None


class Begun(NamedTuple):
    """A batch on its way through the engine.

    Attributes:
        parts: Whose faces.
        started: When it went to the engine, in the clock's time.
        finish: Waits for the engine and gives what it says; None if it would not begin.
    """

    parts: list[Part]
    started: float
    finish: Finish | None


class Outcome(NamedTuple):
    """What became of a batch.

    Attributes:
        answered: Its parts. Those that nobody waited for any more when the engine was to try again
            are left out.
        started: When the batch went to the engine, in the clock's time.
        seconds: How long the engine took.
        busy_s: The same, less what the batch before it took of that.
        failed_calls: Calls of the engine that raised or gave an unusable answer.
    """

    answered: list[Answered]
    started: float
    seconds: float
    busy_s: float
    failed_calls: int


class BatchRunner:
    """Runs batches on an engine that may fail; for one worker thread.

    Attributes:
        call_started: When the engine's present call began, None between calls; any thread may
            read it, to see an engine that hangs.
    """

    def __init__(
        self, infer: Infer, begin: Begin | None, explain: Explain, clock: Callable[[], float]
    ) -> None:
        """Keep the engine and the clock.

        Args:
            infer: uint8[n, h, w] to float32[n, classes].
            begin: Likewise, in two steps; None where the engine cannot.
            explain: uint8[n, h, w] to n explanations.
            clock: Seconds that only go forward.
        """
        self._infer, self._explain, self._clock = infer, explain, clock
        self._begin = begin or partial(partial, infer)
        self._ended = clock()
        self.call_started: float | None = None

    def begin(self, parts: list[Part]) -> Begun:
        """Give a batch to the engine; never raises.

        An engine with `infer` alone does nothing yet.

        Args:
            parts: The batch, one face or more.

        Returns:
            What `finish` wants, once, and in the order in which batches were begun.
        """
        self.call_started = started = self._clock()
        finish: Finish | None = None
        try:
            finish = self._begin(_stack(parts))
        except BaseException:  # noqa: BLE001  # as below
            _log.exception("the engine would not begin a batch; trying again in halves")
        self.call_started = None
        return Begun(parts, started, finish)

    def finish(self, begun: Begun) -> Outcome:
        """Wait for a batch, or compute it; never raises.

        What fails is tried again in halves, down to the single face, so that only the culprit
        goes without an answer and a batch too large for the memory is served in pieces.

        Args:
            begun: What `begin` gave.

        Returns:
            What became of each face.
        """
        answered: list[Answered] = []
        finish = begun.finish
        failed_calls = 0 if finish else 1
        todo = [begun.parts]
        while todo:
            tried = todo.pop()
            if failed_calls:  # time has passed since the batch was formed
                tried = [part for part in tried if part.ticket.wanted(self._clock())]
            if not tried:
                continue
            result = self._try(tried, finish, log=not failed_calls)
            finish = None  # there may be memory again
            if result is not None:
                answered += result
                failed_calls += any(row is None for part in result for row in part.rows)
                continue
            failed_calls += 1
            halves = _halve(tried)
            if halves is None:
                answered.append(Answered(tried[0], [None]))
            else:
                todo += reversed(halves)
        begin_s, self._ended = max(begun.started, self._ended), self._clock()
        return Outcome(
            answered,
            begun.started,
            seconds=self._ended - begun.started,
            busy_s=self._ended - begin_s,
            failed_calls=failed_calls,
        )

    def _try(self, parts: list[Part], finish: Finish | None, log: bool) -> list[Answered] | None:
        """Finish what was begun, else call the engine; for explanations too. None if it fails.

        The caller tries again only after this has returned: until then the traceback keeps alive
        the tensors for which there was no memory.
        """
        self.call_started = self._clock()
        try:
            probabilities = finish() if finish else self._infer(_stack(parts))
            rows = iter(_rows(probabilities, sum(part.stop - part.start for part in parts)))
            answered = [
                Answered(part, list(islice(rows, part.stop - part.start))) for part in parts
            ]
            return self._explained(answered)
        # Even SystemExit, or the panic of a library in another language, must not end the worker.
        except BaseException:  # noqa: BLE001
            if log:  # one traceback a batch: a broken engine must not flood the log
                _log.exception("the engine failed on a batch; trying again in halves")
            return None
        finally:
            self.call_started = None

    def _explained(self, answered: list[Answered]) -> list[Answered]:
        """Add explanations for whom they are wanted."""
        wanted = [answer.part for answer in answered if answer.part.ticket.explained]
        if not wanted:
            return answered
        faces = _stack(wanted)
        explanations = self._explain(faces)
        if len(explanations) != len(faces):
            raise ValueError(f"the engine gave {len(explanations)} reasons for {len(faces)} faces")
        rest = iter(explanations)
        return [
            answer._replace(explanations=list(islice(rest, len(answer.rows))))
            if answer.part.ticket.explained
            else answer
            for answer in answered
        ]


def _halve(parts: list[Part]) -> tuple[list[Part], list[Part]] | None:
    """Split by faces, since a part may be a whole batch; None for a single face."""
    singles = [
        Part(part.ticket, face, face + 1) for part in parts for face in range(part.start, part.stop)
    ]
    half = len(singles) // 2
    return (singles[:half], singles[half:]) if half else None


def _stack(parts: list[Part]) -> Faces:
    """Copy faces into one array, uint8[n, h, w], writable."""
    # Three times as fast as numpy.concatenate, which besides gives up the interpreter's lock for
    # each face: beside a busy event loop the worker would wait for it as often.
    pixels = bytearray().join(part.ticket.faces[part.start : part.stop].data for part in parts)
    return np.frombuffer(pixels, np.uint8).reshape(-1, *parts[0].ticket.faces.shape[1:])


def _rows(probabilities: Probabilities, count: int) -> Rows:
    """Check what the engine gave: a row a face, or ValueError; None for one with NaN or inf."""
    probabilities = np.asarray(probabilities, np.float32)
    if probabilities.ndim != 2 or len(probabilities) != count:
        raise ValueError(f"the engine gave {list(probabilities.shape)} for {count} faces")
    finite = np.logical_and.reduce(np.isfinite(probabilities), axis=1).tolist()
    return [row if good else None for row, good in zip(probabilities, finite, strict=True)]
