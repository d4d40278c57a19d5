"""Engines, opened as the settings say, and the queue before them: here, or in another process.

Only a process that opens one loads torch, which takes seconds and a few hundred MB.

Not its duty: what is around them (`service.app`, `service.server.engine_process`).
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from service.config import Settings
from service.engine.explanation import Explanation
from service.queue.batcher import Batcher
from service.queue.tuning import BatchSeconds, best_batch
from service.telemetry.metrics import Metrics
from training.model.manifest import Manifest

if TYPE_CHECKING:
    from service.engine.torch_engine import Engine

_log = logging.getLogger(__name__)


class FaceEngine(Protocol):
    """What the service needs of an engine that is in its own process."""

    @property
    def device(self) -> str:
        """What it runs on, for metrics and logs."""

    @property
    def manifest(self) -> Manifest:
        """What its checkpoint says about itself."""

    def infer(self, faces: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Map faces uint8[n, h, w] to probabilities float32[n, classes], in one thread."""

    def explain(self, faces: npt.NDArray[np.uint8]) -> list[Explanation]:
        """Say why `infer` answers as it does, in the same thread."""

    def warm(self) -> BatchSeconds:
        """Get ready, and say what batches take if that is known."""


def open_engine(settings: Settings) -> "Engine":
    """Load the checkpoint onto its device. Blocks for seconds.

    Args:
        settings: Which checkpoint, device and sizes.

    Returns:
        The engine, cold.

    Raises:
        CheckpointError: The file cannot be used.
        EngineError: The device is not there.
    """
    from service.engine.cuda.engine import CudaEngine
    from service.engine.torch_engine import Engine, find_device
    from training.model.checkpoint import load_checkpoint

    checkpoint, device = load_checkpoint(settings.checkpoint), str(find_device(settings.device))
    sizes = settings.max_batch, settings.torch_threads, settings.precision
    engine = (
        CudaEngine(checkpoint, device, *sizes, memory_share=settings.gpu_memory)
        if device.startswith("cuda")
        else Engine(checkpoint, device, *sizes)
    )
    _log.info("the network computes in %s on %s", engine.precision, engine.device)
    return engine


async def start_batcher(settings: Settings, engine: FaceEngine, metrics: Metrics) -> Batcher:
    """Warm an engine, and start the queue before it; on the event loop that will submit.

    Args:
        settings: Sizes.
        engine: Cold.
        metrics: Told of every batch.
    """
    seconds = await asyncio.to_thread(engine.warm)
    max_batch = settings.max_batch or min(best_batch(seconds), settings.queue_size)
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
