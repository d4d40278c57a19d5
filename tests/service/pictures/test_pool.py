"""Tests of `service.pictures.pool`: bounded threads, bounded waiting, nothing done in vain."""

import asyncio
import functools
import gc
import math
import threading
import weakref
from collections.abc import Iterator
from functools import partial

import pytest

from service.errors import BadImage, DeadlineExceeded, QueueFull, TooManyPixels
from service.pictures.cost import LIGHT_BYTES, Cost
from service.pictures.pool import STUCK_S, DecodePool, Done

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


async def occupy(pool: DecodePool) -> tuple[Gate, asyncio.Task[Done[str]]]:
    gate = Gate()
    task: asyncio.Task[Done[str]] = asyncio.create_task(pool.run(gate, 1000.0))
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
    assert not pool.saturated()
    gate, first = await occupy(pool)
    assert not pool.saturated()
    second = asyncio.create_task(pool.run(lambda: 2, 1000.0))
    await asyncio.sleep(0)
    assert pool.saturated()
    gate.open.set()
    await asyncio.gather(first, second)
    assert not pool.saturated()


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


HEAVY, LIGHT = Cost(10 * LIGHT_BYTES, 0.5), Cost(LIGHT_BYTES, 0.01)


@pytest.fixture
def wide(clock: Clock) -> Iterator[DecodePool]:
    """A pool of two threads, with memory for two and a half heavy pictures."""
    pool = DecodePool(threads=2, queue_size=100, max_bytes=25 * LIGHT_BYTES, clock=clock)
    yield pool
    pool.close()


def begin(
    pool: DecodePool, work: Gate, cost: Cost | None = None, client: str = "one"
) -> asyncio.Task[Done[str]]:
    weigh = None if cost is None else lambda: cost
    return asyncio.create_task(pool.run(work, 1000.0, weigh, client))


async def entered(*gates: Gate) -> None:
    for gate in gates:
        await asyncio.to_thread(gate.entered.wait)


async def test_light_work_goes_on_beside_heavy_work_in_all_threads(wide: DecodePool) -> None:
    gates = [Gate() for _ in range(3)]
    heavy = [begin(wide, gate, HEAVY) for gate in gates]
    await entered(*gates[:2])
    assert (await wide.run(lambda: 1, 1000.0, lambda: LIGHT, "other")).result == 1
    assert (await wide.run(lambda: 2, 1000.0, lambda: LIGHT, "one")).result == 2
    assert not gates[2].entered.is_set()
    for gate in gates:
        gate.open.set()
    assert [done.result for done in await asyncio.gather(*heavy)] == ["done"] * 3


async def test_light_work_alone_has_no_thread_more(wide: DecodePool) -> None:
    gates = [Gate() for _ in range(3)]
    tasks = [begin(wide, gate, LIGHT) for gate in gates]
    await entered(*gates[:2])
    assert wide.saturated()
    assert not gates[2].entered.is_set()
    for gate in gates:
        gate.open.set()
    await asyncio.gather(*tasks)


async def test_heavy_work_has_no_more_memory_than_there_is(clock: Clock) -> None:
    pool = DecodePool(threads=4, queue_size=100, max_bytes=25 * LIGHT_BYTES, clock=clock)
    gates = [Gate() for _ in range(4)]
    tasks = [begin(pool, gate, HEAVY) for gate in gates]
    for first in (0, 2):
        await entered(*gates[first : first + 2])
        assert not any(gate.entered.is_set() for gate in gates[first + 2 :])
        for gate in gates[first : first + 2]:
            gate.open.set()
    await asyncio.gather(*tasks)
    pool.close()


async def test_no_heavy_work_overtakes_what_waits_for_memory(clock: Clock) -> None:
    pool = DecodePool(threads=3, queue_size=100, max_bytes=25 * LIGHT_BYTES, clock=clock)
    order: list[str] = []
    first, rest = Gate(), [partial(order.append, name) for name in ("large", "small")]
    running = begin(pool, first, HEAVY)
    await entered(first)
    large = Cost(20 * LIGHT_BYTES, 0.5)
    waiting = [
        asyncio.create_task(pool.run(work, 1000.0, partial(lambda cost: cost, cost), name))
        for work, cost, name in zip(rest, (large, HEAVY), ("a", "b"), strict=True)
    ]
    await pool.run(lambda: None, 1000.0, lambda: LIGHT, "c")  # both are weighed by now
    first.open.set()
    await asyncio.gather(running, *waiting)
    assert order == ["large", "small"]
    pool.close()


@pytest.mark.parametrize("cost", [None, LIGHT, HEAVY])
async def test_clients_have_their_turn(clock: Clock, cost: Cost | None) -> None:
    pool = DecodePool(threads=1, queue_size=100, max_bytes=10 * LIGHT_BYTES, clock=clock)
    order: list[str] = []
    gate, running = await occupy(pool)
    waiting = [
        asyncio.create_task(
            pool.run(partial(order.append, name), 1000.0, (lambda: cost) if cost else None, name)
        )
        for name in "aaaabbc"
    ]
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.gather(running, *waiting)
    assert order == list("abcabaa")
    pool.close()


async def test_what_would_never_fit_is_refused(wide: DecodePool) -> None:
    with pytest.raises(TooManyPixels, match="416 MiB, and there are 400"):
        await wide.run(lambda: 1, 1000.0, lambda: Cost(26 * LIGHT_BYTES, 0.1))
    assert (await wide.run(lambda: 1, 1000.0, lambda: HEAVY)).result == 1


async def test_what_weighing_finds_wrong_is_raised(wide: DecodePool) -> None:
    def wrong() -> Cost:
        raise BadImage("broken")

    for _ in range(5):
        with pytest.raises(BadImage, match="broken"):
            await wide.run(lambda: 1, 1000.0, wrong)


async def test_memory_is_given_back_whatever_happens(wide: DecodePool, clock: Clock) -> None:
    all_of_it = Cost(25 * LIGHT_BYTES, 0.1)
    with pytest.raises(ZeroDivisionError):
        await wide.run(lambda: 1 / 0, 1000.0, lambda: all_of_it)
    with pytest.raises(DeadlineExceeded):
        await wide.run(lambda: 1, clock.now - 1.0, lambda: all_of_it)
    gate = Gate()
    first = begin(wide, gate, all_of_it)
    await entered(gate)
    second = begin(wide, Gate(), all_of_it)
    await wide.run(lambda: 1, 1000.0, lambda: LIGHT, "other")
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.open.set()
    await first
    assert (await wide.run(lambda: 1, 1000.0, lambda: all_of_it)).result == 1
