"""The network as CUDA graphs, one per batch size, with pinned buffers and two batches in flight.

    faces ─▶ pinned uint8 ─▶ device ─▶ graph: normalise to softmax ─▶ pinned float32 ─▶ answer
     (host)       (one stream: upload, replay and download in this order)      (event, host)

Launching a kernel costs the host some microseconds, and this network has a hundred small ones: for
small batches the host would be the bottleneck. A graph launches all of them at once. A graph uses
the memory that it was recorded with, so each of the two buffer sets has its own graphs: while one
batch computes, the next one is stacked and queued.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.engine.cuda.buckets import BufferPool, buckets, find_bucket
from training.model.manifest import InputSpec
from training.model.network import AttentionFER
from training.model.preprocess import normalise

IN_FLIGHT = 2
"""Batches that may be begun and not finished."""

# Runs before a recording, in which libraries choose kernels and allocate workspaces.
_WARM_UPS = 3


@dataclass(frozen=True, eq=False)
class _Slot:
    """The buffers and graphs of one batch at a time.

    Attributes:
        staged: uint8[max_batch, h, w], pinned: faces on the host.
        faces: The same on the device.
        answers: float32[max_batch, classes], pinned: probabilities on the host.
        graphs: For each size, its graph and the graph's output on the device.
        done: Recorded when the answers are on the host.
    """

    staged: Tensor
    faces: Tensor
    answers: Tensor
    graphs: list[tuple[torch.cuda.CUDAGraph, Tensor]]
    done: torch.cuda.Event


class GraphedNetwork:
    """A network recorded as graphs; used in one thread."""

    def __init__(
        self,
        network: AttentionFER,
        spec: InputSpec,
        temperature: float,
        max_batch: int,
        dtype: torch.dtype,
    ) -> None:
        """Record every graph; takes seconds, during which nothing else may use the device.

        Args:
            network: On a CUDA device, in evaluation mode, without gradients, channels last.
            spec: Of its input.
            temperature: Divides the logits before the softmax.
            max_batch: Faces in the largest batch, 1 or more.
            dtype: Of the convolutions: float32, bfloat16 or float16. The transform's positions and
                the softmax stay float32.
        """
        self._network, self._spec, self._temperature = network, spec, temperature
        self._dtype = dtype
        self._device = next(network.parameters()).device
        self._sizes = buckets(max_batch)
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        # Uploads, replays and downloads share one stream, so they need no events between them.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        self._pool = BufferPool(tuple(self._slot() for _ in range(IN_FLIGHT)))
        self._stream.synchronize()

    def begin(self, faces: NDArray[np.uint8]) -> Callable[[], NDArray[np.float32]]:
        """Start a batch without waiting for it.

        Args:
            faces: uint8[n, h, w], 0-255, 1 to `max_batch` of them; copied before this returns.

        Returns:
            A function, to be called once, that waits and returns the probabilities,
            float32[n, classes]; the array is not reused.

        Raises:
            RuntimeError: `IN_FLIGHT` batches are begun already.
            ValueError: More faces than a batch may have, or none.
        """
        count, index = len(faces), find_bucket(self._sizes, len(faces))
        size = self._sizes[index]
        slot = self._pool.take()
        try:
            slot.staged.numpy()[:count] = faces
            graph, probabilities = slot.graphs[index]
            with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
                # The padding is data of an earlier batch. No layer mixes faces, and the rows after
                # `count` are not returned.
                slot.faces[:count].copy_(slot.staged[:count], non_blocking=True)
                graph.replay()
                slot.answers[:size].copy_(probabilities, non_blocking=True)
                slot.done.record(self._stream)
        except BaseException:
            self._release(slot)
            raise
        return lambda: self._finish(slot, count)

    def infer(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Do as `begin` does, and wait; also while another batch is begun."""
        return self.begin(faces)()

    def _finish(self, slot: _Slot, count: int) -> NDArray[np.float32]:
        try:
            slot.done.synchronize()
            answers: NDArray[np.float32] = slot.answers[:count].numpy().copy()
        finally:
            self._pool.release(slot)
        return answers

    def _release(self, slot: _Slot) -> None:
        """Return a slot after a failure, once the device does not use it any more."""
        try:
            self._stream.synchronize()
        finally:
            self._pool.release(slot)

    def _slot(self) -> _Slot:
        spec, largest = self._spec, self._sizes[-1]
        shape = (largest, spec.height, spec.width)
        classes = self._network.config.classes
        faces = torch.zeros(shape, dtype=torch.uint8, device=self._device)
        pool = torch.cuda.graph_pool_handle()
        # The largest first: the smaller ones reuse its memory in the pool. A replay may therefore
        # overwrite another graph's output, which was copied before on the same stream.
        recorded = [self._record(faces[:size], pool) for size in reversed(self._sizes)]
        return _Slot(
            staged=torch.zeros(shape, dtype=torch.uint8, pin_memory=True),
            faces=faces,
            answers=torch.zeros((largest, classes), pin_memory=True),
            graphs=recorded[::-1],
            done=torch.cuda.Event(),  # type: ignore[no-untyped-call]
        )

    def _record(
        self, faces: Tensor, pool: "torch.cuda._POOL_HANDLE"
    ) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        # On the stream of the replays: libraries have one workspace per stream.
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                probabilities_of(self._network, faces, self._spec, self._temperature, self._dtype)
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads may call the driver meanwhile, such as the one that reads GPU metrics.
        with (
            torch.cuda.device(self._device),
            torch.cuda.graph(
                graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"
            ),
        ):
            probabilities = probabilities_of(
                self._network, faces, self._spec, self._temperature, self._dtype
            )
        return graph, probabilities


def probabilities_of(
    network: AttentionFER, faces: Tensor, spec: InputSpec, temperature: float, dtype: torch.dtype
) -> Tensor:
    """Classify faces on their device; a graph records this function.

    Args:
        network: On the same device, in evaluation mode.
        faces: uint8[n, h, w], 0-255.
        spec: For the normalisation.
        temperature: Divides the logits before the softmax.
        dtype: Of convolutions and matrix products.

    Returns:
        float32[n, classes].
    """
    # Without autocast's cache of converted weights: it would keep memory of the recording.
    with (
        torch.inference_mode(),
        torch.autocast(
            faces.device.type, dtype, enabled=dtype != torch.float32, cache_enabled=False
        ),
    ):
        images = normalise(faces, spec).contiguous(memory_format=torch.channels_last)
        logits = network(images).logits
        return torch.softmax(logits.float() / temperature, dim=1)
