"""Runs one batch on the engine: stack, begin, finish, check, and retry in halves after a failure.

Faces with an explanation share batches with all others. Afterwards they go to the engine's
`explain` as a second batch of their own, so that no other face's forward pass gets slower.
"""

import logging
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np

from service.engine.contract import Begin, Emotions, Explain, Faces, Finish, Infer, Probabilities
from service.engine.explanation import Explanation
from service.queue.ticket import Part
from training.model.prior import Adjustment, reweigh

Rows = list[Probabilities | None]

_log = logging.getLogger(__name__)


class PartResult(NamedTuple):
    """The engine's result for the faces of a part.

    Attributes:
        part: The faces.
        rows: One row per face; None if the engine failed on that face.
        explanations: One per face; None if they were not requested.
    """

    part: Part
    rows: Rows
    explanations: list[Explanation] | None = None


class StartedBatch(NamedTuple):
    """A batch that the engine is computing.

    Attributes:
        parts: Its faces.
        started: When it went to the engine, in the clock's time.
        finish: Waits for the engine and returns its result; None if `begin` failed.
    """

    parts: list[Part]
    started: float
    finish: Finish | None


class Outcome(NamedTuple):
    """The result of a batch.

    Attributes:
        answered: Its parts, without those that were cancelled or late at a retry.
        started: When the batch went to the engine, in the clock's time.
        seconds: How long the engine took.
        busy_s: The same, without the time in which it computed the batch before.
        failed_calls: Calls of the engine that raised or returned an invalid answer.
    """

    answered: list[PartResult]
    started: float
    seconds: float
    busy_s: float
    failed_calls: int


class BatchRunner:
    """Runs batches on an engine that may fail; used by one worker thread.

    Attributes:
        call_started: When the engine's current call began, None between calls. Any thread may
            read it, to detect an engine that hangs.
    """

    def __init__(
        self, infer: Infer, begin: Begin | None, explain: Explain, clock: Callable[[], float]
    ) -> None:
        """Store the engine's functions and the clock.

        Args:
            infer: uint8[n, h, w] to float32[n, classes].
            begin: The same in two steps; None if the engine does not support it.
            explain: uint8[n, h, w] and int64[n], an emotion a face, to n explanations.
            clock: Seconds that only go forward.
        """
        self._infer, self._explain, self._clock = infer, explain, clock
        self._begin = begin or partial(partial, infer)
        self._ended = clock()
        self.call_started: float | None = None

    def begin(self, parts: list[Part]) -> StartedBatch:
        """Submit a batch to the engine; never raises.

        An engine that has only `infer` computes it in `finish`.

        Args:
            parts: The batch, one face or more.

        Returns:
            The argument for `finish`, which is called once per batch, in order.
        """
        self.call_started = started = self._clock()
        finish: Finish | None = None
        try:
            finish = self._begin(_stack(parts))
        except BaseException:  # noqa: BLE001  # as below
            _log.exception("the engine would not begin a batch; trying again in halves")
        self.call_started = None
        return StartedBatch(parts, started, finish)

    def finish(self, begun: StartedBatch) -> Outcome:
        """Wait for a batch, or compute it; never raises.

        A failed batch is retried in halves, down to single faces. Only a face that itself fails
        gets no answer, and a batch too large for the memory is computed in pieces.

        Args:
            begun: As `begin` returned it.

        Returns:
            The result for each face.
        """
        answered: list[PartResult] = []
        finish = begun.finish
        failed_calls = 0 if finish else 1
        todo = [begun.parts]
        while todo:
            tried = todo.pop()
            if failed_calls:  # time has passed since the batch was formed
                tried = [part for part in tried if part.ticket.needed(self._clock())]
            if not tried:
                continue
            result = self._try(tried, finish, log=not failed_calls)
            finish = None  # a retry calls the engine again
            if result is not None:
                answered += result
                failed_calls += any(row is None for part in result for row in part.rows)
                continue
            failed_calls += 1
            halves = _halve(tried)
            if halves is None:
                answered.append(PartResult(tried[0], [None]))
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

    def _try(self, parts: list[Part], finish: Finish | None, log: bool) -> list[PartResult] | None:
        """Finish the batch or call the engine, then add explanations. None if that fails.

        The caller retries only after this has returned: until then the traceback keeps the
        tensors alive that had exhausted the memory.
        """
        self.call_started = self._clock()
        try:
            probabilities = finish() if finish else self._infer(_stack(parts))
            rows = iter(_rows(probabilities, sum(part.stop - part.start for part in parts)))
            answered = [
                PartResult(part, list(islice(rows, part.stop - part.start))) for part in parts
            ]
            return self._explained(answered)
        # Even SystemExit, or a panic of a native library, must not end the worker.
        except BaseException:  # noqa: BLE001
            if log:  # one traceback per batch: a broken engine must not flood the log
                _log.exception("the engine failed on a batch; trying again in halves")
            return None
        finally:
            self.call_started = None

    def _explained(self, answered: list[PartResult]) -> list[PartResult]:
        """Add the explanations that were requested, of the emotions that will be answered."""
        asked = [answer for answer in answered if answer.part.ticket.explain_under is not None]
        if not asked:
            return answered
        faces = _stack([answer.part for answer in asked])
        emotions = np.concatenate([_emotions(answer) for answer in asked])
        explanations = self._explain(faces, emotions)
        if len(explanations) != len(faces):
            raise ValueError(f"{len(explanations)} explanations for {len(faces)} faces")
        rest = iter(explanations)
        return [
            answer._replace(explanations=list(islice(rest, len(answer.rows))))
            if answer.part.ticket.explain_under is not None
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
    # Three times as fast as numpy.concatenate, which also releases the GIL for each face: the
    # worker would wait for a busy event loop each time.
    pixels = bytearray().join(part.ticket.faces[part.start : part.stop].data for part in parts)
    return np.frombuffer(pixels, np.uint8).reshape(-1, *parts[0].ticket.faces.shape[1:])


def _emotions(answer: PartResult) -> Emotions:
    """Return each face's most probable emotion under its submission's prior."""
    how = answer.part.ticket.explain_under
    assert how is not None  # explanations were requested
    return np.array([_emotion(row, how) for row in answer.rows], np.int64)


def _emotion(row: Probabilities | None, how: Adjustment) -> int:
    # Any emotion will do for a face on which the engine failed: it gets no answer.
    return 0 if row is None else int(reweigh(row, how).argmax())


def _rows(probabilities: Probabilities, count: int) -> Rows:
    """Return one row per face, None for a row with NaN or inf; ValueError for a wrong shape."""
    probabilities = np.asarray(probabilities, np.float32)
    if probabilities.ndim != 2 or len(probabilities) != count:
        raise ValueError(f"the engine gave {list(probabilities.shape)} for {count} faces")
    finite = np.logical_and.reduce(np.isfinite(probabilities), axis=1).tolist()
    return [row if good else None for row, good in zip(probabilities, finite, strict=True)]
