"""`service.http.admission` before the queue, at capacity and beyond, in a time that is made up."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from anyio.lowlevel import checkpoint as let_tasks_run

from service import errors
from service.http.admission import Admission
from service.queue.batcher import Batcher
from service.telemetry.metrics import Metrics
from tests.service.gated_engine import GatedEngine, faces
from tests.service.queue.test_batcher import Clock

pytestmark = pytest.mark.anyio

MAX_BATCH = 8
FULL_S = 0.1
"""What a full batch takes on average: 20 ms, and 10 ms a face."""
CAPACITY = MAX_BATCH / FULL_S


class Crowd:
    """Clients that come at random, with one to `most` faces each, and what becomes of them."""

    def __init__(self, batcher: Batcher, clock: Clock, most: int, patience_s: float) -> None:
        self.chance = random.Random(most)
        self.batcher, self.clock, self.most, self.patience_s = batcher, clock, most, patience_s
        self.admission = Admission(1024, clock)
        self.outcomes: Counter[str] = Counter()
        self.deadlines: list[float] = []
        self.faces_in_time = self.present = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._next_s = clock.now

    async def arrive_until(self, end: float, load: float) -> None:
        """Let everybody come who comes before `end`; the clock stands there afterwards."""
        while self._next_s <= end:
            await self.next_one(load)
        self.clock.now = end

    async def next_one(self, load: float) -> None:
        self.clock.now = self._next_s
        count = self.chance.randint(1, self.most)
        self._next_s += self.chance.expovariate(load * CAPACITY * 2 / (1 + self.most))
        self.present += 1
        self._tasks.append(asyncio.create_task(self._ask(count)))
        await let_tasks_run()

    async def _ask(self, count: int) -> None:
        number, deadline = len(self.deadlines), self.clock.now + self.patience_s
        self.deadlines.append(deadline)
        try:
            with self.admission.enter(deadline) as place:
                place.received()
                place.found(count)
                await self.batcher.submit(faces([number] * count), deadline)
        except errors.ServiceError as error:
            self.outcomes[error.code] += 1
        else:
            assert self.clock.now <= deadline
            self.outcomes["answered"] += 1
            self.faces_in_time += count
        finally:
            self.present -= 1


@pytest.fixture
async def engine(anyio_backend: str) -> GatedEngine:
    return GatedEngine()


@pytest.fixture
async def clock(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clock]:
    """The time of the event loop too, so that deadlines pass in it."""
    clock = Clock()
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "time", clock)
        yield clock


async def serve(
    crowd: Crowd, engine: GatedEngine, load: float, spread: float = 0.3, batches: int = 150
) -> None:
    """Have so many batches computed, whose times vary by `spread`."""
    clock = crowd.clock
    for done in range(len(engine.batches), len(engine.batches) + batches):
        while len(engine.batches) == done:
            if not crowd.present:
                await crowd.next_one(load)
            await let_tasks_run()
        for _ in range(3):  # the answers of the batch before
            await let_tasks_run()
        batch = engine.batches[-1]
        assert all(crowd.deadlines[number] > clock.now for number in batch), "nobody waits for it"
        varied = crowd.chance.lognormvariate(-(spread**2) / 2, spread)
        await crowd.arrive_until(clock.now + (0.02 + 0.01 * len(batch)) * varied, load)
        engine.let_go()


@pytest.fixture
async def batcher(engine: GatedEngine, clock: Clock, metrics: Metrics) -> AsyncIterator[Batcher]:
    batcher = Batcher(
        engine,
        max_batch=MAX_BATCH,
        queue_size=1024,
        metrics=metrics,
        clock=clock,
        hang_s=1000.0,
    )
    batcher.start()
    yield batcher
    engine.open()
    await batcher.drain(100.0)


@pytest.mark.parametrize(
    ("most", "patience_s"),
    [
        (1, 0.3),
        (1, 1.0),
        pytest.param(1, 10.0, marks=pytest.mark.slow),
        (8, 0.4),
        (8, 1.0),
        (8, 10.0),
        pytest.param(24, 1.0, marks=pytest.mark.slow),
    ],
)
async def test_three_times_capacity(
    batcher: Batcher, engine: GatedEngine, clock: Clock, most: int, patience_s: float
) -> None:
    crowd = Crowd(batcher, clock, most, patience_s)
    began = clock.now
    await serve(crowd, engine, load=3.0)
    goodput = crowd.faces_in_time / (clock.now - began)
    assert goodput >= 0.9 * CAPACITY
    late, answered = crowd.outcomes["deadline_exceeded"], crowd.outcomes["answered"]
    assert late <= 0.02 * (late + answered)
    assert crowd.outcomes["overloaded"] > answered
    assert crowd.outcomes.keys() <= {"answered", "overloaded", "deadline_exceeded"}


async def test_a_rush_after_quiet_times_and_quiet_times_after_it(
    batcher: Batcher, engine: GatedEngine, clock: Clock
) -> None:
    crowd = Crowd(batcher, clock, most=4, patience_s=1.0)
    await serve(crowd, engine, load=0.4)
    assert crowd.outcomes.keys() == {"answered"}
    answered, began = crowd.faces_in_time, clock.now
    await serve(crowd, engine, load=3.0, batches=50)
    # Though what was measured are small batches, which take longer a face.
    assert crowd.faces_in_time - answered >= 0.85 * CAPACITY * (clock.now - began)
    await serve(crowd, engine, load=0.4, batches=20)  # what has piled up
    crowd.outcomes.clear()
    await serve(crowd, engine, load=0.4)
    assert crowd.outcomes.keys() == {"answered"}
