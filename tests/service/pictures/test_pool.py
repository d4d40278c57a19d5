"""Tests of `service.pictures.pool`: bounded threads, bounded waiting, nothing done in vain."""

import asyncio
import functools
import gc
import math
import threading
import weakref
from collections.abc import Iterator

import pytest

from service.errors import DeadlineExceeded, Overloaded, QueueFull
from service.pictures.pool import STUCK_S, DecodePool

pytestmark = pytest.mark.anyio


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Gate:
    """Work that ends when it may."""

    def __init__(self) -> None:
        self.entered, self.open = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        self.open.wait()
        return "done"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pool(clock: Clock) -> Iterator[DecodePool]:
    pool = DecodePool(threads=1, queue_size=1, clock=clock)
    yield pool
    pool.close()


async def occupy(pool: DecodePool) -> tuple[Gate, asyncio.Task[object]]:
    gate = Gate()
    task: asyncio.Task[object] = asyncio.create_task(pool.run(gate, 1000.0))
    await asyncio.to_thread(gate.entered.wait)
    return gate, task


async def test_the_result_and_its_times(pool: DecodePool, clock: Clock) -> None:
    def work() -> str:
        clock.now += 0.25
        return "done"

    done = await pool.run(work, 1000.0)
    assert (done.result, done.waited_s, done.spent_s) == ("done", 0.0, 0.25)


async def test_what_work_raises_is_raised(pool: DecodePool) -> None:
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 / 0, 1000.0)
    assert (await pool.run(lambda: 1, 1000.0)).result == 1


async def test_crowded_while_work_waits_for_a_thread(pool: DecodePool) -> None:
    assert not pool.crowded()
    gate, first = await occupy(pool)
    assert not pool.crowded()
    second = asyncio.create_task(pool.run(lambda: 2, 1000.0))
    await asyncio.sleep(0)
    assert pool.crowded()
    gate.open.set()
    await asyncio.gather(first, second)
    assert not pool.crowded()


async def test_full(pool: DecodePool) -> None:
    gate, first = await occupy(pool)
    second = asyncio.create_task(pool.run(lambda: 2, 1000.0))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await pool.run(lambda: 3, 1000.0)
    gate.open.set()
    await first
    assert (await second).result == 2
    assert (await pool.run(lambda: 3, 1000.0)).result == 3  # there is room again


async def test_overloaded_by_the_measured_time(pool: DecodePool, clock: Clock) -> None:
    def slow() -> None:
        clock.now += 100.0

    await pool.run(slow, 10_000.0)  # the mean becomes 5 s
    gate, first = await occupy(pool)
    with pytest.raises(Overloaded) as caught:
        await pool.run(lambda: 2, clock.now + 4.0)
    assert caught.value.retry_after_s == pytest.approx(5.0)
    second = asyncio.create_task(pool.run(lambda: 2, clock.now + 6.0))
    await asyncio.sleep(0)
    gate.open.set()
    await first
    assert (await second).result == 2


async def test_late_work_is_not_begun(pool: DecodePool, clock: Clock) -> None:
    gate, first = await occupy(pool)
    begun = threading.Event()
    second = asyncio.create_task(pool.run(begun.set, clock.now + 5.0))
    await asyncio.sleep(0)
    clock.now += 6.0
    gate.open.set()
    await first
    with pytest.raises(DeadlineExceeded):
        await second
    assert not begun.is_set()


async def test_cancelled_work_is_not_begun(pool: DecodePool) -> None:
    gate, first = await occupy(pool)
    begun = threading.Event()
    second = asyncio.create_task(pool.run(begun.set, 1000.0))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.open.set()
    await first
    await pool.run(lambda: None, 1000.0)  # what stood before it in the queue is past
    assert not begun.is_set()


async def test_cancelled_work_makes_room_at_once(pool: DecodePool) -> None:
    gate, first = await occupy(pool)
    for _ in range(3):
        second = asyncio.create_task(pool.run(lambda: 2, 1000.0))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
    third = asyncio.create_task(pool.run(lambda: 3, 1000.0))
    gate.open.set()
    await first
    assert (await third).result == 3


async def test_a_cancelled_picture_is_let_go_at_once(pool: DecodePool) -> None:
    gate, first = await occupy(pool)
    picture = Gate()
    watched = weakref.ref(picture)
    second = asyncio.create_task(pool.run(picture, 1000.0))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    del second, picture
    gc.collect()
    assert watched() is None
    gate.open.set()
    await first


async def test_many_results_come_to_whom_they_belong() -> None:
    pool = DecodePool(threads=3, queue_size=1000)
    works = [functools.partial(int, number) for number in range(500)]
    dones = await asyncio.gather(*(pool.run(work, math.inf) for work in works))
    assert [done.result for done in dones] == list(range(500))
    pool.close()


async def test_what_waits_at_the_end_is_cancelled(pool: DecodePool) -> None:
    gate, first = await occupy(pool)
    second = asyncio.create_task(pool.run(lambda: 2, 1000.0))
    await asyncio.sleep(0)
    pool.close()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.open.set()
    assert (await first).result == "done"


async def test_work_that_nobody_waits_for_keeps_its_thread(pool: DecodePool) -> None:
    gate, first = await occupy(pool)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(pool.run(lambda: 2, 1000.0))
    await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await pool.run(lambda: 3, 1000.0)
    gate.open.set()
    assert (await second).result == 2


async def test_stuck_threads_are_seen(clock: Clock) -> None:
    pool = DecodePool(threads=2, queue_size=1, clock=clock)
    first, task = await occupy(pool)
    clock.now += STUCK_S + 1
    assert pool.healthy  # the other thread serves
    second, other = await occupy(pool)
    assert pool.healthy
    clock.now += STUCK_S + 1
    assert not pool.healthy
    first.open.set()
    await task
    assert pool.healthy
    second.open.set()
    await other
    pool.close()
