"""One batch through the engine: stacked, computed, checked, and after a failure halved.

Not its duty: which faces are in the batch (`service.inference.face_queue`), answering
(`service.inference.batcher`).
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from service.inference.face_queue import Faces, Part, Probabilities

Infer = Callable[[Faces], Probabilities]
Rows = list[Probabilities | None]

_log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What became of a batch.

    Attributes:
        rows: For each part a row a face, None where the engine failed on that face. Parts that
            nobody waited for any more when the engine was to try again are left out.
        started: When the batch went to the engine, in the clock's time.
        seconds: How long all of it took.
        failed_calls: Calls of the engine that raised or gave an unusable answer.
    """

    rows: list[tuple[Part, Rows]]
    started: float
    seconds: float
    failed_calls: int


class BatchRunner:
    """Runs batches on an engine that may fail; for one worker thread.

    Attributes:
        call_started: When the engine's present call began, None between calls; any thread may
            read it, to see an engine that hangs.
    """

    def __init__(self, infer: Infer, clock: Callable[[], float]) -> None:
        """Keep the engine and the clock.

        Args:
            infer: uint8[n, h, w] to float32[n, classes].
            clock: Seconds that only go forward.
        """
        self._infer, self._clock = infer, clock
        self.call_started: float | None = None

    def run(self, parts: list[Part]) -> Outcome:
        """Compute a batch; never raises.

        What fails is tried again in halves, down to the single face, so that only the culprit
        goes without an answer and a batch too large for the memory is served in pieces.

        Args:
            parts: The batch, one face or more.

        Returns:
            What became of each face.
        """
        started = self._clock()
        rows: list[tuple[Part, Rows]] = []
        failed_calls = 0
        todo = [parts]
        while todo:
            tried = todo.pop()
            if failed_calls:  # time has passed since the batch was formed
                tried = [part for part in tried if part.ticket.wanted(self._clock())]
            if not tried:
                continue
            result = self._try(tried, log=not failed_calls)
            if result is not None:
                rows += zip(tried, result, strict=True)
                failed_calls += any(row is None for answers in result for row in answers)
                continue
            failed_calls += 1
            halves = _halve(tried)
            if halves is None:
                rows.append((tried[0], [None]))
            else:
                todo += reversed(halves)
        return Outcome(rows, started, self._clock() - started, failed_calls)

    def _try(self, parts: list[Part], log: bool) -> list[Rows] | None:
        """Call the engine once; None if it fails.

        The caller tries again only after this has returned: until then the traceback keeps alive
        the tensors for which there was no memory.
        """
        self.call_started = self._clock()
        try:
            faces = _stack(parts)
            rows = iter(_rows(self._infer(faces), len(faces)))
            return [[next(rows) for _ in range(part.start, part.stop)] for part in parts]
        # Even SystemExit, or the panic of a library in another language, must not end the worker.
        except BaseException:  # noqa: BLE001
            if log:  # one traceback a batch: a broken engine must not flood the log
                _log.exception("the engine failed on a batch; trying again in halves")
            return None
        finally:
            self.call_started = None


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
