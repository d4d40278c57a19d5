"""Starts the queue in front of an engine: warms and times it, and chooses the batch limit."""

import asyncio
import logging

from service.config import Settings
from service.engine.contract import BatchSeconds, Engine
from service.queue.batcher import Batcher
from service.queue.tuning import choose_batch_limit
from service.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)


async def start_batcher(settings: Settings, engine: Engine, metrics: Metrics) -> Batcher:
    """Warm an engine and start its queue; on the event loop that will submit.

    Args:
        settings: Sizes.
        engine: Loaded, not warm yet.
        metrics: Records every batch.
    """
    seconds = await asyncio.to_thread(engine.warm)
    max_batch = settings.max_batch or min(choose_batch_limit(seconds), settings.queue_size)
    _log.info("batches have at most %d faces%s", max_batch, _describe(seconds))
    batcher = Batcher(
        engine.infer,
        max_batch=max_batch,
        queue_size=settings.queue_size,
        metrics=metrics,
        begin=getattr(engine, "begin", None),  # not every engine can
        explain=engine.explain,
        linger_s=settings.linger_ms / 1e3,
    )
    batcher.start()
    metrics.engines.set(1)
    return batcher


def _describe(seconds: BatchSeconds) -> str:
    measured = (f"{size / taken:.0f}/s in {size}" for size, taken in seconds.items() if taken)
    return f" ({', '.join(measured)})" if seconds else ""
