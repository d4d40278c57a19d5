"""Tests of `service.remote.client`, and of `service.remote.host`, over a real socket."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from service.engine.contract import EngineInfo
from service.engine.explanation import Explanation
from service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InternalError,
    NotReady,
    QueueFull,
    ShuttingDown,
)
from service.queue.backend import Cancel
from service.queue.batcher import Batcher
from service.remote.client import RemoteBackend
from service.remote.host import EngineHost
from service.telemetry.metrics import Metrics
from tests.service.gated_engine import GatedEngine, face, faces
from tests.service.serving import MANIFEST
from tests.waiting import until
from training.model.prior import Adjustment

pytestmark = pytest.mark.anyio

OTHER = EngineInfo(type(MANIFEST)("other", "8", MANIFEST.network, MANIFEST.emotions), "cpu")


class CountedBatcher(Batcher):
    """Counts what it was given."""

    submissions = 0

    def enqueue(self, *args: Any) -> Cancel:
        self.submissions += 1
        return super().enqueue(*args)


class Site:
    """An engine with a batcher behind a socket, all in this loop."""

    def __init__(self, path: Path, metrics: Metrics, queue_size: int, hello: EngineInfo) -> None:
        self.path, self.engine, self.metrics = path, GatedEngine(), metrics
        self.batcher = CountedBatcher(
            self.engine, max_batch=4, queue_size=queue_size, metrics=metrics, explain=explain
        )
        self.host = EngineHost(self.batcher, hello)
        self.transports: list[asyncio.Transport] = []

    def protocol(self) -> asyncio.Protocol:
        """Return the host's protocol of a connection, and remember the connection."""
        protocol = self.host.protocol()
        begin = protocol.connection_made

        def connection_made(transport: asyncio.BaseTransport) -> None:
            self.transports.append(cast(asyncio.Transport, transport))
            begin(transport)

        protocol.connection_made = connection_made  # type: ignore[method-assign]
        return protocol

    @property
    def abandoned(self) -> float | None:
        return self.metrics.registry.get_sample_value("fer_abandoned_faces_total")

    async def open(self) -> None:
        self.batcher.start()
        loop = asyncio.get_running_loop()
        self.path.unlink(missing_ok=True)
        self.server = await loop.create_unix_server(self.protocol, str(self.path))

    async def close(self) -> None:
        self.engine.open()
        self.server.close()
        await self.batcher.drain(5)
        await self.host.close()

    def die(self) -> None:
        """End every connection, as the kernel does for a process that was killed."""
        self.server.close()
        for transport in self.transports:
            transport.abort()


def explain(batch: np.ndarray, emotions: np.ndarray) -> list[Explanation]:
    """Explain each face by its emotion's index."""
    square = np.ones((2, 2), np.float32)
    return [
        Explanation(np.full((2, 3), emotion, np.float32), one, None, square)
        for one, emotion in zip(batch, emotions, strict=True)
    ]


@asynccontextmanager
async def site(
    path: Path, metrics: Metrics, queue_size: int = 16, hello: EngineInfo | None = None
) -> AsyncIterator[Site]:
    made = Site(path, metrics, queue_size, hello or EngineInfo(MANIFEST, "cpu"))
    await made.open()
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def worker(
    *paths: Path, queue_size: int = 16, healthy: Callable[[int], bool] = lambda place: True
) -> AsyncIterator[RemoteBackend]:
    made = RemoteBackend(paths, healthy, queue_size)
    await made.start()
    try:
        yield made
    finally:
        await made.drain(5)


def soon() -> float:
    return time.monotonic() + 30


async def test_faces_are_answered_as_by_the_batcher_itself(
    tmp_path: Path, metrics: Metrics
) -> None:
    async with site(tmp_path / "e", metrics) as here, worker(here.path) as remote:
        here.engine.open()
        assert remote.healthy
        assert remote.info == EngineInfo(MANIFEST, "cpu")
        answers = await remote.submit(faces(range(9)), soon())
        assert [one.probabilities.tolist() for one in answers] == [
            [number, 1.0, 0.0] for number in range(9)
        ]
        assert all(one.explanation is None for one in answers)
        # The engine's answer is [3, 1, 0]; the shift makes the second emotion the most probable.
        under = Adjustment(1.0, np.array([0, 2, 0], np.float32))
        (explained,) = await remote.submit(face(3), soon(), under)
        assert explained.explanation is not None
        assert explained.explanation.theta[0, 0] == 1
        assert explained.probabilities.tolist() == [3, 1, 0]
        assert np.array_equal(explained.explanation.straightened, face(3)[0])
        assert await remote.submit(np.empty((0, 2, 2), np.uint8), soon()) == []
        with pytest.raises(ValueError, match="expected uint8"):
            await remote.submit(np.zeros((2, 2), np.uint8), soon())


async def test_faces_of_several_workers_share_batches_and_one_bound(
    tmp_path: Path, metrics: Metrics
) -> None:
    async with (
        site(tmp_path / "e", metrics, queue_size=4) as here,
        worker(here.path, queue_size=4) as one,
        worker(here.path, queue_size=4) as other,
    ):
        first = asyncio.create_task(one.submit(face(0), soon()))
        await here.engine.called(1)
        waiting = [
            asyncio.create_task(batcher.submit(faces([n, n + 1]), soon()))
            for batcher, n in ((one, 1), (other, 3))
        ]
        await until(lambda: here.batcher.submissions == 3)
        with pytest.raises(QueueFull) as refused:
            await other.submit(face(5), soon())
        assert refused.value.retry_after_s is not None
        here.engine.open()
        await asyncio.gather(first, *waiting)
        assert here.engine.batches == [[0], [1, 2, 3, 4]]


async def test_who_is_gone_is_dropped(tmp_path: Path, metrics: Metrics) -> None:
    async with site(tmp_path / "e", metrics) as here, worker(here.path) as stays:
        first = asyncio.create_task(stays.submit(face(0), soon()))
        await here.engine.called(1)
        gone = asyncio.create_task(stays.submit(face(1), soon()))
        await until(lambda: here.batcher.submissions == 2)
        gone.cancel()
        await until(lambda: here.abandoned == 1)
        dead = RemoteBackend([here.path], lambda place: True, 16)
        await dead.start()
        left = asyncio.create_task(dead.submit(face(2), soon()))
        await until(lambda: here.batcher.submissions == 3)
        await dead.drain(0)
        with pytest.raises(ShuttingDown):
            await left
        await until(lambda: here.abandoned == 2)
        here.engine.open()
        await first
        assert here.engine.batches == [[0]]


async def test_a_deadline_holds_even_if_the_engines_process_stands_still(
    tmp_path: Path, metrics: Metrics
) -> None:
    async with site(tmp_path / "e", metrics) as here, worker(here.path) as remote:
        with pytest.raises(DeadlineExceeded):
            await remote.submit(face(0), time.monotonic() - 1)
        here.transports[0].pause_reading()
        with pytest.raises(DeadlineExceeded):
            await remote.submit(face(0), time.monotonic() + 0.01)
        assert here.engine.batches == []


async def test_failures_arrive_and_others_do_not_notice(tmp_path: Path, metrics: Metrics) -> None:
    async with site(tmp_path / "e", metrics) as here, worker(here.path) as remote:
        here.engine.poison = {1}
        here.engine.open()
        bad, good = await asyncio.gather(
            *(remote.submit(face(n), soon()) for n in (1, 2)), return_exceptions=True
        )
        assert isinstance(bad, InferenceFailed)
        assert not isinstance(good, BaseException)
        here.batcher.enqueue = None  # type: ignore[assignment,method-assign]
        with pytest.raises(InternalError):
            await remote.submit(face(3), soon())


async def test_a_dead_engine_fails_whom_it_had_and_its_successor_serves(
    tmp_path: Path, metrics: Metrics
) -> None:
    path = tmp_path / "e"
    async with site(path, metrics) as first, worker(path) as remote:
        had = asyncio.create_task(remote.submit(face(0), soon()))
        await first.engine.called(1)
        first.die()
        with pytest.raises(NotReady) as error:
            await had
        assert error.value.retry_after_s is not None
        assert not remote.healthy
        with pytest.raises(NotReady):
            await remote.submit(face(1), soon())
        first.engine.open()
        async with site(path, metrics) as second:
            second.engine.open()
            await until(lambda: remote.healthy)
            assert len(await remote.submit(face(2), soon())) == 1


async def test_an_engine_with_another_checkpoint_gets_no_faces(
    tmp_path: Path, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "e"
    async with site(path, metrics) as first, worker(path) as remote:
        first.die()
        async with site(path, metrics, hello=OTHER):
            await until(lambda: "another checkpoint" in caplog.text)
            assert not remote.healthy


async def test_the_engine_that_has_least_to_do_gets_the_next_faces(
    tmp_path: Path, metrics: Metrics
) -> None:
    connected: set[int] = set()

    def is_healthy(place: int) -> bool:
        connected.add(place)  # it is asked of connected engines only
        return True

    async with (
        site(tmp_path / "a", metrics) as a,
        site(tmp_path / "b", metrics) as b,
        worker(a.path, b.path, healthy=is_healthy) as remote,
    ):
        await until(lambda: remote.healthy and len(connected) == 2)
        asked = [asyncio.create_task(remote.submit(face(n), soon())) for n in range(2)]
        await asyncio.gather(a.engine.called(1), b.engine.called(1))
        a.engine.open()
        b.engine.open()
        await asyncio.gather(*asked)


async def test_an_engine_that_is_not_well_gets_no_faces(tmp_path: Path, metrics: Metrics) -> None:
    async with site(tmp_path / "e", metrics) as here:
        well = True
        remote = RemoteBackend([here.path], lambda place: well, 16)
        await remote.start()
        well = False
        assert not remote.healthy
        with pytest.raises(NotReady):
            await remote.submit(face(0), soon())
        await remote.drain(0)


async def test_a_drain_waits_for_the_answers_that_are_due(tmp_path: Path, metrics: Metrics) -> None:
    async with site(tmp_path / "e", metrics) as here, worker(here.path) as remote:
        asked = asyncio.create_task(remote.submit(face(0), soon()))
        await here.engine.called(1)
        draining = asyncio.create_task(remote.drain(30))
        await asyncio.sleep(0)  # it begins
        with pytest.raises(ShuttingDown):
            await remote.submit(face(1), soon())
        assert not draining.done()
        here.engine.open()
        assert len(await asked) == 1
        await draining


async def test_nonsense_ends_the_connection_and_nothing_else(
    tmp_path: Path, metrics: Metrics
) -> None:
    async with site(tmp_path / "e", metrics) as here, worker(here.path) as remote:
        here.engine.open()
        reader, writer = await asyncio.open_unix_connection(str(here.path))
        writer.write(b"\xff" * 64)
        hello = await reader.read(-1)
        assert b"fake" in hello
        writer.close()
        assert len(await remote.submit(face(0), soon())) == 1


async def test_a_worker_without_any_engine_gives_up(
    tmp_path: Path,
) -> None:
    remote = RemoteBackend([tmp_path / "none"], lambda place: True, 16)
    with pytest.raises(TimeoutError):
        await remote.start(timeout_s=0.01)
    await remote.drain(0)
