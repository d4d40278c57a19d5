"""Tests of explanations in `service.queue.batch`: they share batches with all other faces."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from anyio.lowlevel import checkpoint as let_tasks_run
from numpy.typing import NDArray

from service import errors
from service.engine.explanation import Explanation
from service.queue.batcher import Batcher, Inference
from service.telemetry.metrics import Metrics
from tests.service.gated_engine import GatedEngine, face, faces, numbers_of
from tests.service.queue.test_batcher import numbers, soon, value
from training.model.prior import Adjustment

pytestmark = pytest.mark.anyio


class Reasons:
    """Explains a face by its number; remembers whom it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.emotions: list[list[int]] = []
        self.poison: set[int] = set()
        self.missing = 0

    def __call__(self, batch: NDArray[np.uint8], emotions: NDArray[np.int64]) -> list[Explanation]:
        self.asked.append(numbers_of(batch))
        self.emotions.append(emotions.tolist())
        if self.poison & set(self.asked[-1]):
            raise RuntimeError("poisoned")
        nowhere = np.zeros((2, 2), np.float32)
        found = [
            Explanation(np.full((2, 3), number, np.float32), pixels, None, nowhere)
            for number, pixels in zip(self.asked[-1], batch, strict=True)
        ]
        return found[self.missing :]


@pytest.fixture
async def engine(anyio_backend: str) -> GatedEngine:
    return GatedEngine()


@pytest.fixture
def reasons() -> Reasons:
    return Reasons()


@pytest.fixture
async def batcher(
    engine: GatedEngine, reasons: Reasons, metrics: Metrics
) -> AsyncIterator[Batcher]:
    """Batches of up to eight; the engine already holds one face, number 999."""
    batcher = Batcher(engine, max_batch=8, queue_size=64, metrics=metrics, explain=reasons)
    batcher.start()
    task = asyncio.create_task(batcher.submit(face(999), soon()))
    await engine.called(1)
    yield batcher
    engine.open()
    assert numbers(await task) == [999]
    await batcher.drain(10)


Submission = tuple[NDArray[np.uint8], bool | Adjustment]
AS_IT_IS = Adjustment(1.0, np.zeros(3, np.float32))


async def enter(batcher: Batcher, *submissions: Submission) -> list[asyncio.Task[list[Inference]]]:
    """Submit faces, explained or not: as the engine answers, or under an adjustment."""
    wanted = [(f, (AS_IT_IS if why else None) if isinstance(why, bool) else why)
              for f, why in submissions]  # fmt: skip
    tasks = [asyncio.create_task(batcher.submit(f, soon(), why)) for f, why in wanted]
    await let_tasks_run()
    return tasks


def explained(answers: list[Inference]) -> list[int | None]:
    return [None if a.explanation is None else int(a.explanation.theta[0, 0]) for a in answers]


async def test_mixed_faces_share_a_batch(
    batcher: Batcher, engine: GatedEngine, reasons: Reasons, metrics: Metrics
) -> None:
    tasks = await enter(
        batcher, (face(0), False), (faces([1, 2]), True), (faces([3, 4]), False), (face(5), True)
    )
    engine.open()
    answers = [await task for task in tasks]
    assert [numbers(a) for a in answers] == [[0], [1, 2], [3, 4], [5]]
    assert [explained(a) for a in answers] == [[None], [1, 2], [None, None], [5]]
    assert engine.batches == [[999], [0, 1, 2, 3, 4, 5]]
    assert reasons.asked == [[1, 2, 5]]  # at once, and nobody else
    assert value(metrics, "fer_batch_faces_sum") == 7


async def test_explained_faces_spread_over_batches_in_order(
    batcher: Batcher, engine: GatedEngine, reasons: Reasons
) -> None:
    (task,) = await enter(batcher, (faces(range(10)), True))
    engine.open()
    answers = await task
    assert numbers(answers) == explained(answers) == list(range(10))
    assert reasons.asked == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9]]


async def test_each_submission_is_explained_under_its_own_prior(
    batcher: Batcher, engine: GatedEngine, reasons: Reasons
) -> None:
    """The engine's answer to a face is [its number, 1, 0]."""
    fivefold = Adjustment(1.0, np.log(np.array([1, 5, 1], np.float32)))
    tasks = await enter(
        batcher, (faces([2, 9]), AS_IT_IS), (face(3), False), (faces([2, 9]), fivefold)
    )
    engine.open()
    answers = [await task for task in tasks]
    assert reasons.asked == [[2, 9, 2, 9]]
    assert reasons.emotions == [[0, 0, 1, 0]]
    assert [numbers(a) for a in answers] == [[2, 9], [3], [2, 9]]  # not adjusted here


async def test_a_face_with_an_unusable_answer_fails_alone(
    batcher: Batcher, engine: GatedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = engine.answer

    def answer(numbers: list[int]) -> NDArray[np.float32]:
        rows = right(numbers)
        rows[rows == 2] = np.nan
        return rows

    monkeypatch.setattr(engine, "answer", answer)
    tasks = await enter(batcher, (face(1), True), (face(2), True))
    engine.open()
    results: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[1], errors.InferenceFailed)
    assert explained(results[0]) == [1]


async def test_a_face_that_cannot_be_explained_fails_alone(
    batcher: Batcher, engine: GatedEngine, reasons: Reasons
) -> None:
    reasons.poison = {2}
    tasks = await enter(batcher, *((face(n), n in (1, 2)) for n in range(4)))
    engine.open()
    results: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results.pop(2), errors.InferenceFailed)
    assert [explained(r) for r in results] == [[None], [1], [None]]
    assert reasons.asked == [[1, 2], [1], [2], [2]]  # in halves, as the engine's own failures


async def test_too_few_explanations_are_a_failure(
    batcher: Batcher, engine: GatedEngine, reasons: Reasons
) -> None:
    reasons.missing = 1
    (task,) = await enter(batcher, (faces([1, 2]), True))
    engine.open()
    with pytest.raises(errors.InferenceFailed):
        await task


async def test_who_has_gone_is_not_explained(
    batcher: Batcher, engine: GatedEngine, reasons: Reasons, metrics: Metrics
) -> None:
    leaver, other = await enter(batcher, (face(1), True), (face(2), False))
    leaver.cancel()
    await asyncio.wait([leaver])
    engine.open()
    assert numbers(await other) == [2]
    assert reasons.asked == []
    assert value(metrics, "fer_abandoned_faces_total") == 1


async def test_a_batcher_without_reasons_gives_none(engine: GatedEngine, metrics: Metrics) -> None:
    engine.open()
    batcher = Batcher(engine, max_batch=8, queue_size=64, metrics=metrics)
    batcher.start()
    with pytest.raises(errors.InferenceFailed):
        await batcher.submit(face(1), soon(), AS_IT_IS)
    assert explained(await batcher.submit(face(1), soon())) == [None]
    await batcher.drain(10)
