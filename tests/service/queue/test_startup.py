"""Tests of `service.queue.startup`: the queue before an engine, as settings and engine have it."""

import logging
from collections.abc import Callable

import pytest

from service.config import Settings
from service.queue.batcher import Batcher
from service.queue.startup import start_batcher
from service.telemetry.metrics import Metrics
from tests.service.serving import FakeEngine, serving

pytestmark = pytest.mark.anyio


class MeasuredEngine(FakeEngine):
    """Best in batches of eight, where it takes 20 ms."""

    device = "cpu"

    def warm(self) -> dict[int, float]:
        return {1: 0.008, 4: 0.012, 8: 0.020, 16: 0.040}


def limit(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("fer_batch_limit_faces")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [(Settings(), 8), (Settings(max_batch=4), 4), (Settings(queue_size=2, max_images=2), 2)],
    ids=["measured", "chosen", "no more than the queue holds"],
)
async def test_the_batch_limit(
    metrics: Metrics,
    settings: Settings,
    expected: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "service.queue.startup"):
        batcher = await start_batcher(settings, MeasuredEngine(), metrics)
    await batcher.drain(10)
    assert limit(metrics) == expected
    assert f"batches have at most {expected} faces (125/s in 1, " in caplog.text


async def test_an_engine_that_measured_nothing_gets_a_usual_limit(metrics: Metrics) -> None:
    batcher = await start_batcher(Settings(), FakeEngine(), metrics)
    await batcher.drain(10)
    assert limit(metrics) == 32


@pytest.mark.parametrize(("device", "gives_way"), [("cpu", True), ("elsewhere", False)])
async def test_an_engine_on_the_decoders_cores_gives_way_to_it(
    monkeypatch: pytest.MonkeyPatch, device: str, gives_way: bool
) -> None:
    saturated: list[Callable[[], bool]] = []
    monkeypatch.setattr(Batcher, "defer_batches_while", lambda _, asked: saturated.append(asked))
    engine = MeasuredEngine()
    engine.device = device
    async with serving(engine) as (_, app):
        assert saturated == ([app.state.service.pool.saturated] if gives_way else [])
