"""Tests of `service.queue.batcher` before an engine that takes a batch while it has another."""

import asyncio
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from service import errors
from service.queue.batcher import Batcher, Inference
from service.telemetry.metrics import Metrics
from tests.service.gated_engine import GatedEngine, face, numbers_of
from tests.service.queue.test_batcher import Clock, enter, numbers, value

pytestmark = pytest.mark.anyio


class TwoStepEngine(GatedEngine):
    """Waits at the gate in the second step; `infer` is for what failed. Remembers each step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str, list[int]]] = []
        self.refused: set[int] = set()

    def begin(self, batch: NDArray[np.uint8]) -> Callable[[], NDArray[np.float32]]:
        asked = numbers_of(batch)
        self.steps.append(("begin", asked))
        if self.refused & set(asked):
            raise RuntimeError("refused")

        def finish() -> NDArray[np.float32]:
            self.steps.append(("finish", asked))
            return self(batch)

        return finish

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.steps.append(("infer", numbers_of(batch)))
        if self.poison & set(numbers_of(batch)):
            raise self.error
        return self.answer(numbers_of(batch))


@pytest.fixture
async def engine(anyio_backend: str) -> TwoStepEngine:
    return TwoStepEngine()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def batcher(engine: TwoStepEngine, clock: Clock, metrics: Metrics) -> AsyncIterator[Batcher]:
    """Batches of up to four, in front of an engine whose gate is shut."""
    batcher = Batcher(
        engine.infer,
        begin=engine.begin,
        max_batch=4,
        queue_size=64,
        metrics=metrics,
        clock=clock,
        hang_s=60.0,
    )
    batcher.start()
    yield batcher
    engine.open()
    await batcher.drain(10)


async def ask(
    batcher: Batcher, engine: TwoStepEngine, count: int
) -> list[asyncio.Task[list[Inference]]]:
    """Submit faces 0 to `count` while the engine holds number 999, then let that one go."""
    tasks = await enter(batcher, face(999), deadline=1000.0)
    await engine.called(1)
    tasks += await enter(batcher, *(face(n) for n in range(count)), deadline=1000.0)
    engine.let_go()
    await engine.called(2)
    return tasks


async def test_a_full_batch_begins_while_another_runs(
    batcher: Batcher, engine: TwoStepEngine, metrics: Metrics
) -> None:
    tasks = await ask(batcher, engine, 14)
    first, second, third = [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]
    begun = [("begin", [999]), ("finish", [999]), ("begin", first), ("begin", second)]
    assert engine.steps == [*begun, ("finish", first)]  # two at most
    engine.let_go()
    await engine.called(3)
    assert engine.steps[5:] == [("begin", third), ("finish", second)]
    engine.open()
    assert [numbers(await task) for task in tasks] == [[999], *([n] for n in range(14))]
    # What does not fill a batch waits for the engine, and for those who come meanwhile.
    last = [("finish", third), ("begin", [12, 13]), ("finish", [12, 13])]
    assert engine.steps[7:] == last
    assert len(engine.threads) == 1
    assert value(metrics, "fer_batch_faces_count") == 5


async def test_time_that_two_batches_share_counts_once(
    batcher: Batcher, engine: TwoStepEngine, clock: Clock, metrics: Metrics
) -> None:
    tasks = await ask(batcher, engine, 8)
    clock.now += 2.0
    engine.let_go()
    await engine.called(3)
    clock.now += 2.0
    engine.open()
    await asyncio.gather(*tasks)
    assert value(metrics, "fer_engine_busy_seconds_total") == 4.0
    assert (await tasks[-1])[0].inference_s == 4.0  # from its begin to its end
    assert value(metrics, "fer_stage_seconds_sum", stage="queue") == 0.0


@pytest.mark.parametrize("step", ["begin", "finish"])
async def test_a_batch_that_fails_is_tried_again_beside_the_other(
    batcher: Batcher, engine: TwoStepEngine, metrics: Metrics, step: str
) -> None:
    engine.poison = {2}
    engine.refused = {2} if step == "begin" else set()
    tasks = await ask(batcher, engine, 8)
    engine.open()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results.pop(3), errors.InferenceFailed)
    assert [numbers(r) for r in results if not isinstance(r, BaseException)] == [
        [n] for n in (999, 0, 1, 3, 4, 5, 6, 7)
    ]
    failed = engine.steps.index(("infer", [0, 1]))
    assert engine.steps.index(("begin", [4, 5, 6, 7])) < failed
    assert engine.steps[-1] == ("finish", [4, 5, 6, 7])
    assert value(metrics, "fer_batch_faces_sum") == 9
    assert batcher.healthy


async def test_what_begins_once_there_is_memory_again_is_answered(
    batcher: Batcher, engine: TwoStepEngine, metrics: Metrics
) -> None:
    engine.refused = {1}
    engine.open()
    tasks = await enter(batcher, *(face(n) for n in range(4)), deadline=1000.0)
    assert [numbers(await task) for task in tasks] == [[n] for n in range(4)]
    assert value(metrics, "fer_engine_failures_total") == 1


async def test_draining_finishes_both(batcher: Batcher, engine: TwoStepEngine) -> None:
    tasks = await ask(batcher, engine, 10)
    engine.open()
    await batcher.drain(10)
    assert [numbers(task.result()) for task in tasks] == [[999], *([n] for n in range(10))]


async def test_a_drain_that_runs_out_of_time_tells_both(
    batcher: Batcher, engine: TwoStepEngine
) -> None:
    tasks = await ask(batcher, engine, 10)
    await batcher.drain(0.01)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results[1:]] == [errors.ShuttingDown] * 10


async def test_an_engine_that_hangs_is_seen(
    batcher: Batcher, engine: TwoStepEngine, clock: Clock
) -> None:
    tasks = await ask(batcher, engine, 8)
    clock.now += 61.0
    assert not batcher.healthy
    engine.open()
    await asyncio.gather(*tasks)
    assert batcher.healthy
