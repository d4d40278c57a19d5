"""Faces that the worker makes as their batch is formed (`service.queue.ticket.DeferredFaces`)."""

import asyncio
import threading
from collections.abc import AsyncIterator
from functools import partial

import numpy as np
import pytest
from anyio.lowlevel import checkpoint as let_tasks_run
from numpy.typing import NDArray

from service import errors
from service.queue.batch import BatchRunner
from service.queue.batcher import Batcher, Inference
from service.queue.ticket import DeferredFaces, Part, Ticket
from service.telemetry.metrics import Metrics
from tests.service.gated_engine import GatedEngine, face
from tests.service.queue.test_batcher import Clock, numbers, soon, value

pytestmark = pytest.mark.anyio


class Panic(BaseException):
    """What a library in another language may raise."""


class Making:
    """Makes a face, or fails; knows in which threads it was asked to."""

    def __init__(
        self,
        number: int,
        error: BaseException | None = None,
        clock: Clock | None = None,
        takes_s: float = 0.0,
    ) -> None:
        self.number, self.error, self.clock, self.takes_s = number, error, clock, takes_s
        self.threads: list[str] = []

    def __call__(self) -> NDArray[np.uint8]:
        self.threads.append(threading.current_thread().name)
        if self.clock:
            self.clock.now += self.takes_s
        if self.error:
            raise self.error
        return face(self.number)


def late(number: int, error: BaseException | None = None) -> DeferredFaces:
    return DeferredFaces(Making(number, error), (1, 2, 2))


@pytest.fixture
async def engine(anyio_backend: str) -> GatedEngine:
    return GatedEngine()


@pytest.fixture
async def batcher(engine: GatedEngine, metrics: Metrics) -> AsyncIterator[Batcher]:
    """Batches of up to eight; the engine already holds one face, number 999."""
    batcher = Batcher(engine, max_batch=8, queue_size=64, metrics=metrics)
    batcher.start()
    [task] = await enter(batcher, face(999))
    await engine.called(1)
    yield batcher
    engine.open()
    assert numbers(await task) == [999]
    await batcher.drain(10)


async def enter(
    batcher: Batcher, *submissions: NDArray[np.uint8] | DeferredFaces
) -> list[asyncio.Task[list[Inference]]]:
    tasks = [asyncio.create_task(batcher.submit(s, soon())) for s in submissions]
    await let_tasks_run()
    return tasks


async def test_they_are_made_by_the_worker_when_it_is_their_turn(
    batcher: Batcher, engine: GatedEngine
) -> None:
    making = Making(7)
    tasks = await enter(batcher, face(6), DeferredFaces(making, (1, 2, 2)), face(8))
    assert making.threads == []
    engine.open()
    assert [numbers(await task) for task in tasks] == [[6], [7], [8]]
    assert making.threads == ["fer-batcher"]
    assert engine.batches == [[999], [6, 7, 8]]


@pytest.mark.parametrize("error", [errors.BadImage("broken"), RuntimeError("a bug"), Panic()])
async def test_what_cannot_be_made_fails_alone(
    batcher: Batcher, engine: GatedEngine, metrics: Metrics, error: BaseException
) -> None:
    tasks = await enter(batcher, late(1), late(2, error), face(3))
    engine.open()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[1] is error
    assert [numbers(answer) for answer in (found[0], found[2])] == [[1], [3]]  # type: ignore[arg-type]
    assert engine.batches == [[999], [1, 3]]
    assert value(metrics, "fer_engine_failures_total") == 0


async def test_a_batch_of_nothing_else_does_not_reach_the_engine(
    batcher: Batcher, engine: GatedEngine
) -> None:
    [task] = await enter(batcher, late(1, errors.BadImage("broken")))
    engine.open()
    with pytest.raises(errors.BadImage):
        await task
    assert numbers(await batcher.submit(late(2), soon())) == [2]
    assert engine.batches == [[999], [2]]


@pytest.mark.parametrize(
    "made", [np.zeros((2, 2, 2), np.uint8), np.zeros((1, 3, 2), np.uint8), np.zeros((1, 2, 2))]
)
async def test_other_faces_than_were_announced_are_refused(
    batcher: Batcher, engine: GatedEngine, made: NDArray[np.uint8]
) -> None:
    tasks = await enter(batcher, DeferredFaces(lambda: made, (1, 2, 2)), face(5))
    engine.open()
    with pytest.raises(ValueError, match="faces are"):
        await tasks[0]
    assert numbers(await tasks[1]) == [5]


async def test_nothing_is_made_for_who_has_gone(
    batcher: Batcher, engine: GatedEngine, metrics: Metrics
) -> None:
    making = Making(7)
    gone, stays = await enter(batcher, DeferredFaces(making, (1, 2, 2)), late(8))
    gone.cancel()
    await let_tasks_run()
    engine.open()
    assert numbers(await stays) == [8]
    assert making.threads == []
    assert value(metrics, "fer_abandoned_faces_total") == 1


async def test_two_batches_at_once_never_count_for_less_than_nothing() -> None:
    """Making the second takes longer than the engine's share of it, which the first one hid."""
    clock = Clock()

    def finish(took_s: float, answer: NDArray[np.float32]) -> NDArray[np.float32]:
        clock.now += took_s
        return answer

    took = iter((10.0, 1.0))
    runner = BatchRunner(
        GatedEngine(),
        lambda batch: partial(finish, next(took), np.zeros((len(batch), 3), np.float32)),
        lambda _: [],
        clock,
    )
    loop = asyncio.get_running_loop()

    def part(takes_s: float) -> Part:
        making = Making(1, clock=clock, takes_s=takes_s)
        ticket = Ticket(face(0), 1e9, 0.0, loop.create_future(), [None], 1, make=making)
        return Part(ticket, 0, 1)

    begun = [runner.begin([part(2.0)]), runner.begin([part(5.0)])]
    first, second = (runner.finish(each) for each in begun)
    assert (first.seconds, first.busy_s, first.making_s) == (15.0, 15.0, 2.0)
    assert (second.seconds, second.busy_s, second.making_s) == (11.0, 1.0, 5.0)


class Timed:
    """Takes a second a batch, on the test's clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def __call__(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        self._clock.now += 1.0
        return np.zeros((len(batch), 3), np.float32)


async def test_the_time_it_takes_is_the_workers_and_not_the_engines(metrics: Metrics) -> None:
    clock = Clock()
    batcher = Batcher(Timed(clock), max_batch=8, queue_size=64, metrics=metrics, clock=clock)
    batcher.start()
    slow = DeferredFaces(Making(1, clock=clock, takes_s=0.5), (1, 2, 2))
    [answer] = await batcher.submit(slow, 200.0)
    assert (answer.queue_s, answer.inference_s) == (0.0, 1.0)
    assert value(metrics, "fer_engine_busy_seconds_total") == 1.0
    await batcher.drain(10)
