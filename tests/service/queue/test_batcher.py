"""Tests of `batcher`, `batch`, `face_queue` and `rate` in `service.queue`."""

import asyncio
import gc
import logging
import random
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from anyio.lowlevel import checkpoint as let_tasks_run
from numpy.typing import NDArray

from service import errors
from service.queue.batcher import Batcher, Inference
from service.queue.face_queue import MAX_DEFER_S, REGROUP_S
from service.telemetry.metrics import Metrics
from tests.service.gated_engine import GatedEngine, face, faces

pytestmark = pytest.mark.anyio

Build = Callable[..., Batcher]


class Clock:
    """Time that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def engine(anyio_backend: str) -> GatedEngine:
    return GatedEngine()


@pytest.fixture
async def build(engine: GatedEngine, metrics: Metrics) -> AsyncIterator[Build]:
    """Start batchers in front of the gated engine; stop them at the end, leaving no thread."""
    before = set(threading.enumerate())
    built: list[Batcher] = []

    def start(infer: Any = engine, **options: Any) -> Batcher:
        settings: dict[str, Any] = {"max_batch": 4, "queue_size": 64, "metrics": metrics} | options
        built.append(Batcher(infer, **settings))
        built[-1].start()
        return built[-1]

    yield start
    engine.open()
    for batcher in built:
        await batcher.drain(10)
    assert [t for t in set(threading.enumerate()) - before if t.name == "fer-batcher"] == []


def soon() -> float:
    return time.monotonic() + 60


def value(metrics: Metrics, metric: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(metric, labels)
    assert found is not None, metric
    return found


async def enter(
    batcher: Batcher, *submissions: NDArray[np.uint8], deadline: float | None = None
) -> list[asyncio.Task[list[Inference]]]:
    """Submit, one task each, and return once all are admitted or refused."""
    tasks = [asyncio.create_task(batcher.submit(s, deadline or soon())) for s in submissions]
    await let_tasks_run()
    return tasks


def numbers(answers: list[Inference]) -> list[int]:
    return [int(answer.probabilities[0]) for answer in answers]


@asynccontextmanager
async def busy(batcher: Batcher, engine: GatedEngine) -> AsyncIterator[None]:
    """Have the engine hold a batch of one face, number 999, meanwhile."""
    [task] = await enter(batcher, face(999))
    await engine.called(len(engine.batches) + 1)
    yield
    engine.open()
    assert numbers(await task) == [999]


# Batches


async def test_a_face_alone_is_served_at_once(build: Build, engine: GatedEngine) -> None:
    engine.open()
    [answer] = await build().submit(face(7), soon())
    assert answer.probabilities.dtype == np.float32
    assert answer.probabilities.tolist() == [7.0, 1.0, 0.0]
    assert answer.queue_s >= 0
    assert answer.inference_s > 0


async def test_a_free_engine_takes_all_that_waits_up_to_the_limit(
    build: Build, engine: GatedEngine
) -> None:
    batcher = build(max_batch=4)
    tasks = await enter(batcher, face(0))
    await engine.called(1)
    tasks += await enter(batcher, *(face(n) for n in range(1, 8)))
    engine.let_go()
    await engine.called(2)
    tasks += await enter(batcher, face(8))  # joins the three that are left over
    engine.let_go()
    await engine.called(3)
    engine.open()
    assert [numbers(await task) for task in tasks] == [[n] for n in range(9)]
    assert engine.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert len(engine.threads) == 1


async def test_faces_of_one_submission_spread_over_batches_in_order(
    build: Build, engine: GatedEngine
) -> None:
    batcher = build(max_batch=4)
    async with busy(batcher, engine):
        many, one = await enter(batcher, faces(range(10)), face(50))
        engine.open()
        assert numbers(await many) == list(range(10))
        assert numbers(await one) == [50]
    assert engine.batches == [[999], [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 50]]


async def test_a_batch_holds_faces_of_one_size(build: Build, engine: GatedEngine) -> None:
    batcher = build()
    async with busy(batcher, engine):
        tasks = await enter(batcher, face(1), face(2, side=3), face(3, side=3), face(4))
        engine.open()
        assert [numbers(await task) for task in tasks] == [[1], [2], [3], [4]]
    assert engine.batches == [[999], [1], [2, 3], [4]]


async def test_faces_need_not_be_contiguous(build: Build, engine: GatedEngine) -> None:
    engine.open()
    answers = await build().submit(faces(range(6))[::2], soon())
    assert numbers(answers) == [0, 2, 4]


async def test_lingering_fills_a_batch(build: Build, engine: GatedEngine) -> None:
    engine.open()
    batcher = build(max_batch=3, linger_s=1000.0, clock=Clock())
    tasks = await enter(batcher, face(1), face(2), deadline=200.0)
    tasks += await enter(batcher, face(3), deadline=200.0)
    assert [numbers(await task) for task in tasks] == [[1], [2], [3]]
    assert engine.batches == [[1, 2, 3]]


async def test_draining_cuts_a_linger_short(build: Build, engine: GatedEngine) -> None:
    engine.open()
    batcher = build(max_batch=3, linger_s=1000.0, clock=Clock())
    [task] = await enter(batcher, face(1), deadline=200.0)
    await batcher.drain(10)
    assert numbers(await task) == [1]


async def test_one_wake_up_a_batch(
    build: Build, engine: GatedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    batcher = build(max_batch=8)
    async with busy(batcher, engine):
        tasks = await enter(batcher, *(face(n) for n in range(16)))
        loop, calls = asyncio.get_running_loop(), []
        original = loop.call_soon_threadsafe

        def counting(callback: Any, *args: Any, **kwargs: Any) -> asyncio.Handle:
            if threading.current_thread().name == "fer-batcher" and "Event" not in repr(callback):
                calls.append(callback)
            return original(callback, *args, **kwargs)

        monkeypatch.setattr(loop, "call_soon_threadsafe", counting)
        engine.open()
        await asyncio.gather(*tasks)
    assert [len(batch) for batch in engine.batches] == [1, 8, 8]
    assert len(calls) == 3


# Giving way to the decoder


class Crowd:
    """All cores are busy until the test says otherwise; the worker's question is an event."""

    def __init__(self) -> None:
        self.busy = True
        self.asked = threading.Event()

    def __call__(self) -> bool:
        self.asked.set()
        return self.busy


async def asked(crowd: Crowd) -> None:
    """Wait until the worker has asked once more, having seen all that was submitted."""
    crowd.asked.clear()
    assert await asyncio.to_thread(crowd.asked.wait, 30)


@pytest.fixture
def crowd() -> Crowd:
    return Crowd()


async def test_while_the_cores_are_busy_a_batch_fills(
    build: Build, engine: GatedEngine, crowd: Crowd
) -> None:
    engine.open()
    batcher = build(max_batch=3, clock=Clock())
    batcher.defer_batches_while(crowd)
    tasks = await enter(batcher, face(1), face(2), deadline=200.0)
    await asked(crowd)
    assert engine.batches == []
    tasks += await enter(batcher, face(3), deadline=200.0)
    assert [numbers(await task) for task in tasks] == [[1], [2], [3]]
    assert engine.batches == [[1, 2, 3]]


async def test_when_they_are_free_again_it_goes_as_it_is(
    build: Build, engine: GatedEngine, crowd: Crowd
) -> None:
    engine.open()
    batcher = build(max_batch=3, clock=Clock())
    batcher.defer_batches_while(crowd)
    [task] = await enter(batcher, face(1), deadline=200.0)
    await asked(crowd)
    crowd.busy = False
    assert numbers(await task) == [1]


async def test_who_was_answered_together_may_ask_again_before_the_next_batch(
    build: Build, engine: GatedEngine, crowd: Crowd
) -> None:
    engine.open()
    crowd.busy = False
    clock = Clock()
    batcher = build(max_batch=3, clock=clock)
    batcher.defer_batches_while(crowd)
    await batcher.submit(faces([1, 2]), 200.0)
    tasks = await enter(batcher, face(3), deadline=200.0)
    clock.now += REGROUP_S * 0.9
    await asked(crowd)
    assert engine.batches == [[1, 2]]
    tasks += await enter(batcher, face(4), deadline=200.0)
    clock.now += REGROUP_S * 0.2
    assert [numbers(await task) for task in tasks] == [[3], [4]]
    assert engine.batches == [[1, 2], [3, 4]]


@pytest.mark.parametrize(("shared", "first"), [(True, face(1)), (False, faces([1, 2]))])
async def test_nobody_is_waited_for_after_a_single_face_or_by_a_device_of_its_own(
    build: Build, engine: GatedEngine, crowd: Crowd, shared: bool, first: NDArray[np.uint8]
) -> None:
    engine.open()
    crowd.busy = False
    batcher = build(max_batch=3, clock=Clock())  # it stands still: what waits, waits for ever
    if shared:
        batcher.defer_batches_while(crowd)
    await batcher.submit(first, 200.0)
    assert numbers(await batcher.submit(face(3), 200.0)) == [3]


@pytest.mark.parametrize(("patience_s", "most_s"), [(100.0, MAX_DEFER_S), (0.2, 0.05)])
async def test_it_gives_way_for_a_while_only(
    build: Build, engine: GatedEngine, crowd: Crowd, patience_s: float, most_s: float
) -> None:
    engine.open()
    clock = Clock()
    batcher = build(max_batch=3, clock=clock)
    batcher.defer_batches_while(crowd)
    [task] = await enter(batcher, face(1), deadline=clock.now + patience_s)
    clock.now += most_s * 0.9
    await asked(crowd)
    assert engine.batches == []
    clock.now += most_s * 0.2
    assert numbers(await task) == [1]


# Admission


async def test_a_full_queue_refuses_and_says_when_to_come_back(
    build: Build, engine: GatedEngine
) -> None:
    batcher = build(queue_size=3)
    async with busy(batcher, engine):
        tasks = await enter(batcher, face(1), face(2), face(3))
        with pytest.raises(errors.QueueFull) as refused:
            await batcher.submit(face(4), soon())
        assert refused.value.retry_after_s is not None
        assert refused.value.retry_after_s > 0
        engine.open()
        assert [numbers(await task) for task in tasks] == [[1], [2], [3]]
    assert numbers(await batcher.submit(face(5), soon())) == [5]


async def test_faces_are_admitted_together_or_not_at_all(build: Build, engine: GatedEngine) -> None:
    batcher = build(queue_size=4)
    async with busy(batcher, engine):
        first = await enter(batcher, faces([1, 2]))
        with pytest.raises(errors.QueueFull):
            await batcher.submit(faces([3, 4, 5]), soon())
        second = await enter(batcher, faces([6, 7]))  # what was refused left no trace
        engine.open()
        assert [numbers(await task) for task in first + second] == [[1, 2], [6, 7]]
    assert engine.batches == [[999], [1, 2, 6, 7]]


async def test_more_faces_than_the_queue_holds_never_fit(build: Build) -> None:
    with pytest.raises(errors.QueueFull, match="takes 4") as refused:
        await build(queue_size=4).submit(faces(range(5)), soon())
    assert refused.value.retry_after_s is None  # waiting would not help


async def test_what_fits_is_let_in(build: Build, engine: GatedEngine) -> None:
    batcher = build()
    async with busy(batcher, engine):
        tasks = await enter(batcher, *(face(n) for n in range(20)), deadline=time.monotonic() + 30)
        engine.open()
        assert [numbers(await task) for task in tasks] == [[n] for n in range(20)]


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((2, 2), np.uint8), np.zeros((1, 2, 2), np.float32), np.zeros((1, 1, 2, 2), np.uint8)],
)
async def test_what_is_no_face_is_refused(build: Build, wrong: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match=r"expected uint8\[n, h, w\]"):
        await build().submit(wrong, soon())


async def test_no_faces_no_answers(build: Build, engine: GatedEngine) -> None:
    assert await build().submit(np.zeros((0, 2, 2), np.uint8), soon()) == []
    assert engine.batches == []


async def test_before_the_start_nothing_is_taken(engine: GatedEngine, metrics: Metrics) -> None:
    batcher = Batcher(engine, max_batch=1, queue_size=1, metrics=metrics)
    assert not batcher.healthy
    with pytest.raises(errors.NotReady):
        await batcher.submit(face(1), soon())


@pytest.mark.parametrize(
    "wrong", [{"max_batch": 0}, {"queue_size": 0}, {"linger_s": -1.0}, {"hang_s": -1.0}]
)
async def test_sizes_and_times_are_checked(build: Build, wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="batcher"):
        build(**wrong)


async def test_it_starts_once(build: Build) -> None:
    batcher = build()
    with pytest.raises(RuntimeError, match="before"):
        batcher.start()


# Deadlines and clients that leave


async def test_a_deadline_in_the_past_is_refused(build: Build, engine: GatedEngine) -> None:
    with pytest.raises(errors.DeadlineExceeded):
        await build().submit(face(1), time.monotonic() - 0.001)
    assert engine.batches == []


async def test_a_deadline_in_the_queue_fails_promptly_and_spares_the_engine(
    build: Build, engine: GatedEngine, metrics: Metrics
) -> None:
    batcher = build()
    async with busy(batcher, engine):  # it hangs for as long as this takes
        [late] = await enter(batcher, face(1), deadline=time.monotonic() + 0.02)
        [other] = await enter(batcher, face(2))
        with pytest.raises(errors.DeadlineExceeded):
            await late
        assert value(metrics, "fer_queue_faces") == 1
        engine.open()
        assert numbers(await other) == [2]
    assert engine.batches == [[999], [2]]
    assert value(metrics, "fer_abandoned_faces_total") == 0


async def test_a_deadline_during_the_work_fails_promptly(build: Build, engine: GatedEngine) -> None:
    batcher = build()
    late = asyncio.create_task(batcher.submit(face(1), time.monotonic() + 0.02))
    await engine.called(1)
    with pytest.raises(errors.DeadlineExceeded):
        await late
    [after] = await enter(batcher, face(2))
    engine.open()
    assert numbers(await after) == [2]  # the late answer went nowhere


async def test_the_worker_itself_looks_at_deadlines(build: Build, engine: GatedEngine) -> None:
    # A loop too busy to run its timers must not cost the engine a batch.
    clock = Clock()
    batcher = build(clock=clock)
    [running] = await enter(batcher, face(0), deadline=200.0)
    await engine.called(1)
    late, kept = await enter(batcher, face(1), deadline=150.0) + await enter(
        batcher, face(2), deadline=200.0
    )
    clock.now = 160.0
    engine.open()
    assert numbers(await kept) == [2]
    assert engine.batches == [[0], [2]]
    late.cancel()
    await asyncio.gather(running, late, return_exceptions=True)


async def test_who_has_gone_is_dropped_as_the_batch_is_formed(
    build: Build, engine: GatedEngine, metrics: Metrics
) -> None:
    batcher = build(max_batch=4)
    async with busy(batcher, engine):
        tasks = await enter(batcher, *(face(n) for n in range(8)))
        for gone in (0, 2, 3):
            tasks[gone].cancel()
        await asyncio.wait([tasks[gone] for gone in (0, 2, 3)])
        engine.let_go()
        await engine.called(2)
        assert engine.batches[1] == [1, 4, 5, 6]  # full all the same
        engine.open()
        assert [numbers(await tasks[n]) for n in (1, 4, 5, 6, 7)] == [[1], [4], [5], [6], [7]]
        assert all(tasks[n].cancelled() for n in (0, 2, 3))
    assert value(metrics, "fer_abandoned_faces_total") == 3
    assert value(metrics, "fer_queue_faces") == 0


async def test_who_has_gone_makes_room_at_once(build: Build, engine: GatedEngine) -> None:
    batcher = build(queue_size=2)
    async with busy(batcher, engine):
        gone, kept = await enter(batcher, face(1), face(2))
        gone.cancel()
        await asyncio.wait([gone])
        [new] = await enter(batcher, face(3))
        engine.open()
        assert [numbers(await task) for task in (kept, new)] == [[2], [3]]


async def test_leaving_in_the_middle_saves_the_rest(
    build: Build, engine: GatedEngine, metrics: Metrics
) -> None:
    batcher = build(max_batch=4)
    [task] = await enter(batcher, faces(range(10)))
    await engine.called(1)
    task.cancel()
    await asyncio.wait([task])
    engine.open()
    assert numbers(await batcher.submit(face(50), soon())) == [50]
    assert engine.batches == [[0, 1, 2, 3], [50]]
    assert value(metrics, "fer_abandoned_faces_total") == 6


@pytest.mark.parametrize("leaves", [True, False], ids=["gone", "answered"])
async def test_no_pixels_are_kept(build: Build, engine: GatedEngine, leaves: bool) -> None:
    # Not by the queue of a hanging engine, and not by a timer until the deadline.
    batcher, pixels = build(), face(1)
    kept = weakref.ref(pixels)
    async with busy(batcher, engine):
        [task] = await enter(batcher, pixels)
        if leaves:
            task.cancel()
        else:
            engine.open()
        await asyncio.wait([task])
        if not leaves:
            await batcher.drain(10)
        del pixels, task
        gc.collect()
        assert kept() is None


# ErrorMiddleware


async def test_a_poison_face_among_eight_fails_alone(
    build: Build, engine: GatedEngine, metrics: Metrics
) -> None:
    batcher = build(max_batch=8)
    async with busy(batcher, engine):
        engine.poison = {5}
        tasks = await enter(batcher, *(face(n) for n in range(8)))
        engine.open()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results.pop(5), errors.InferenceFailed)
    assert [numbers(r) for r in results if not isinstance(r, BaseException)] == [
        [n] for n in (0, 1, 2, 3, 4, 6, 7)
    ]
    assert value(metrics, "fer_engine_failures_total") == 4  # 8, 4, 2 and 1 faces
    assert value(metrics, "fer_batch_faces_sum") == 9  # a face counts once


@pytest.mark.parametrize(
    "error", [RuntimeError("broken"), MemoryError(), SystemExit(1), StopIteration()]
)
async def test_an_engine_that_fails_whole_is_survived(
    build: Build, engine: GatedEngine, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    batcher = build(max_batch=4)
    async with busy(batcher, engine):
        engine.poison, engine.error = set(range(4)), error
        tasks = await enter(batcher, *(face(n) for n in range(4)))
        engine.open()
        for task in tasks:
            with pytest.raises(errors.InferenceFailed):
                await task
    assert len(caplog.records) == 1  # one traceback a batch
    assert caplog.records[0].levelno == logging.ERROR
    engine.poison = set()
    assert numbers(await batcher.submit(face(2), soon())) == [2]
    assert batcher.healthy


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
async def test_a_batch_too_large_for_the_memory_is_served_in_pieces(
    build: Build, engine: GatedEngine, error: BaseException
) -> None:
    batcher = build(max_batch=8)
    async with busy(batcher, engine):
        engine.too_large, engine.error = 2, error
        tasks = await enter(batcher, faces(range(6)), face(6), face(7))
        engine.open()
        assert [numbers(await task) for task in tasks] == [list(range(6)), [6], [7]]
    assert [len(batch) for batch in engine.batches] == [1, 8, 4, 2, 2, 4, 2, 2]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda batch: np.zeros((len(batch) + 1, 3), np.float32),
        lambda batch: np.zeros((len(batch) - 1, 3), np.float32),
        lambda batch: np.zeros(len(batch), np.float32),
        lambda batch: None,
        lambda batch: np.full((len(batch), 3), np.nan, np.float32),
        lambda batch: np.full((len(batch), 3), np.inf, np.float32),
    ],
)
async def test_an_unusable_answer_is_a_failure(
    build: Build, wrong: Callable[[NDArray[np.uint8]], Any], metrics: Metrics
) -> None:
    batcher = build(wrong)
    with pytest.raises(errors.InferenceFailed):
        await batcher.submit(faces([1, 2]), soon())
    assert value(metrics, "fer_engine_failures_total") >= 1


async def test_a_face_that_gives_nan_fails_alone_and_without_another_try(
    build: Build, engine: GatedEngine
) -> None:
    def nan_for_two(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        answer = engine(batch)
        answer[answer[:, 0] == 2] = np.nan
        return answer

    batcher = build(nan_for_two)
    async with busy(batcher, engine):
        tasks = await enter(batcher, *(face(n) for n in range(4)))
        engine.open()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results.pop(2), errors.InferenceFailed)
    assert not any(isinstance(result, BaseException) for result in results)
    assert engine.batches == [[999], [0, 1, 2, 3]]


async def test_trying_again_skips_who_has_gone_meanwhile(build: Build, engine: GatedEngine) -> None:
    batcher = build(max_batch=4)
    async with busy(batcher, engine):
        engine.poison = {0}
        tasks = await enter(batcher, *(face(n) for n in range(4)))
        engine.let_go()
        await engine.called(2)
        tasks[2].cancel()
        await asyncio.wait([tasks[2]])
        engine.open()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], errors.InferenceFailed)
    assert engine.batches == [[999], [0, 1, 2, 3], [0, 1], [0], [1], [3]]


async def test_a_hanging_engine_is_seen_and_its_return_too(
    build: Build, engine: GatedEngine
) -> None:
    clock = Clock()
    batcher = build(clock=clock, hang_s=5.0)
    assert batcher.healthy
    [task] = await enter(batcher, face(1), deadline=200.0)
    await engine.called(1)
    clock.now += 5.0
    assert batcher.healthy
    clock.now += 0.1
    assert not batcher.healthy
    engine.open()
    assert numbers(await task) == [1]
    assert numbers(await batcher.submit(face(2), 200.0)) == [2]
    assert batcher.healthy


# The end


async def test_draining_finishes_what_was_accepted_and_refuses_the_rest(
    build: Build, engine: GatedEngine
) -> None:
    batcher = build(max_batch=2)
    tasks = await enter(batcher, *(face(n) for n in range(5)))
    await engine.called(1)
    draining = asyncio.create_task(batcher.drain(30))
    await let_tasks_run()
    with pytest.raises(errors.ShuttingDown):
        await batcher.submit(face(9), soon())
    engine.open()
    await draining
    assert [numbers(await task) for task in tasks] == [[n] for n in range(5)]
    assert not batcher.healthy
    await batcher.drain(30)  # again does no harm


async def test_draining_a_hanging_engine_ends_in_time(build: Build, engine: GatedEngine) -> None:
    batcher = build(max_batch=2)
    tasks = await enter(batcher, *(face(n) for n in range(5)))
    await engine.called(1)
    await batcher.drain(0.01)
    for task in tasks:
        with pytest.raises(errors.ShuttingDown):
            await task
    assert len(engine.batches) == 1  # the fixture sees the worker end once the engine returns


async def test_draining_before_the_start(engine: GatedEngine, metrics: Metrics) -> None:
    await Batcher(engine, max_batch=1, queue_size=1, metrics=metrics).drain(1)


async def test_metrics_tell_the_story(build: Build, engine: GatedEngine, metrics: Metrics) -> None:
    batcher = build(max_batch=4, queue_size=10)
    assert value(metrics, "fer_queue_limit_faces") == 10
    async with busy(batcher, engine):
        tasks = await enter(batcher, faces(range(6)))
        assert value(metrics, "fer_queue_faces") == 6
        engine.open()
        await asyncio.gather(*tasks)
    await batcher.drain(10)
    assert value(metrics, "fer_queue_faces") == 0
    assert value(metrics, "fer_batch_faces_count") == 3
    assert value(metrics, "fer_batch_faces_sum") == 7
    assert value(metrics, "fer_engine_busy_seconds_total") > 0
    assert value(metrics, "fer_stage_seconds_count", stage="queue") == 3
    assert value(metrics, "fer_stage_seconds_count", stage="inference") == 3


# Everything at once


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("seed", range(3))
async def test_each_gets_its_own_answers_whatever_happens(
    metrics: Metrics, seed: int, steps: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    chance = random.Random(seed)
    engine_chance = random.Random(seed + 1000)  # of the worker's own
    seen: list[int] = []

    def fickle(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        ids = [int(i) for i in np.ascontiguousarray(batch[:, 0]).view("<u4")[:, 0]]
        assert len(ids) <= 8
        if any(i % 97 == 0 for i in ids) or engine_chance.random() < 0.05:
            raise RuntimeError("fickle")
        seen.extend(ids)
        return np.array([[i % 2**20, 1.0] for i in ids], np.float32)

    begin = partial(partial, fickle) if steps == 2 else None
    batcher = Batcher(fickle, begin=begin, max_batch=8, queue_size=40, metrics=metrics)
    batcher.start()
    counts = {"answered": 0, "refused": 0, "failed": 0, "late": 0, "gone": 0}

    async def one_client(first: int) -> None:
        ids = np.arange(first, first + chance.randint(1, 12), dtype="<u4")
        pixels = ids.view(np.uint8).reshape(len(ids), 1, 4)
        patience = chance.choice([60, 60, 60, 0.002])
        task = asyncio.create_task(batcher.submit(pixels, time.monotonic() + patience))
        for _ in range(chance.randint(0, 6)):
            await let_tasks_run()
        if chance.random() < 0.2:
            task.cancel()
        try:
            assert numbers(await task) == ids.tolist()
            counts["answered"] += 1
        except errors.QueueFull:
            counts["refused"] += 1
        except errors.InferenceFailed:
            counts["failed"] += 1
        except errors.DeadlineExceeded:
            counts["late"] += 1
        except asyncio.CancelledError:
            counts["gone"] += 1

    async def client_after_client(start: int) -> None:
        for turn in range(30):
            await one_client(start + turn * 12)

    async with asyncio.timeout(60):
        await asyncio.gather(*(client_after_client(1 + n * 360) for n in range(24)))
        await batcher.drain(10)
    assert sum(counts.values()) == 24 * 30
    assert all(counts[what] for what in ("answered", "refused", "failed", "gone")), counts
    assert len(seen) == len(set(seen))  # no face was computed twice with success
    assert value(metrics, "fer_queue_faces") == 0
