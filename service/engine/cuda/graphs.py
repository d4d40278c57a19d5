"""The network on CUDA: a graph a size of batch, pinned buffers, two batches in flight.

    faces ─▶ pinned uint8 ─▶ device ─▶ graph: normalise to softmax ─▶ pinned float32 ─▶ answer
     (host)       (one stream: upload, replay and download in this order)      (event, host)

Launching a kernel costs the host some microseconds and this network has a hundred small ones, so
that for small batches the host would be the limit; a graph launches them at once. Each of the two
sets of buffers has graphs of its own, since a graph reads and writes the memory that it was
recorded with: while one batch computes, the next one is stacked and queued. Not its duty: which
sizes there are (`service.engine.cuda.buckets`); loading the network.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.engine.cuda.buckets import Turns, bucket_of, buckets
from training.model.manifest import InputSpec
from training.model.network import AttentionFER
from training.model.preprocess import normalise

IN_FLIGHT = 2
"""Batches that may be begun and not finished."""

# Before a recording, for libraries to choose their kernels and take their workspaces.
_WARM_UPS = 3


@dataclass(frozen=True, eq=False)
class _Slot:
    """What one batch at a time uses.

    Attributes:
        staged: uint8[max_batch, h, w], pinned: faces on the host.
        faces: The same on the device.
        answers: float32[max_batch, classes], pinned: probabilities on the host.
        graphs: For each size, its graph and the probabilities on the device that it leaves.
        done: When the answers are on the host.
    """

    staged: Tensor
    faces: Tensor
    answers: Tensor
    graphs: list[tuple[torch.cuda.CUDAGraph, Tensor]]
    done: torch.cuda.Event


class GraphedNetwork:
    """A network recorded as graphs; all of it from one thread."""

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
            spec: The faces that it takes.
            temperature: What logits are divided by before the softmax.
            max_batch: Faces in the largest batch, 1 or more.
            dtype: What convolutions compute in: float32, bfloat16 or float16. Positions of the
                transform and the softmax stay float32.
        """
        self._network, self._spec, self._temperature = network, spec, temperature
        self._dtype = dtype
        self._device = next(network.parameters()).device
        self._sizes = buckets(max_batch)
        self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        # Uploads, replays and downloads are all on one stream: what follows needs no event.
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        self._turns = Turns(tuple(self._slot() for _ in range(IN_FLIGHT)))
        self._stream.synchronize()

    def begin(self, faces: NDArray[np.uint8]) -> Callable[[], NDArray[np.float32]]:
        """Start a batch without waiting for it.

        Args:
            faces: uint8[n, h, w], 0-255, 1 to `max_batch` of them; copied before this returns.

        Returns:
            To be called once: waits, and gives the probabilities, float32[n, classes], the
            caller's to keep.

        Raises:
            RuntimeError: `IN_FLIGHT` batches are begun already.
            ValueError: More faces than a batch may have, or none.
        """
        count, place = len(faces), bucket_of(self._sizes, len(faces))
        size = self._sizes[place]
        slot = self._turns.take()
        try:
            slot.staged.numpy()[:count] = faces
            graph, probabilities = slot.graphs[place]
            with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
                # Padding computes what an earlier batch left there. No layer mixes faces, and
                # nobody is shown the rows behind `count`.
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
            self._turns.give_back(slot)
        return answers

    def _release(self, slot: _Slot) -> None:
        """Give a slot back after a failure, once nothing on the device uses it any more."""
        try:
            self._stream.synchronize()
        finally:
            self._turns.give_back(slot)

    def _slot(self) -> _Slot:
        spec, largest = self._spec, self._sizes[-1]
        shape = (largest, spec.height, spec.width)
        classes = self._network.config.classes
        faces = torch.zeros(shape, dtype=torch.uint8, device=self._device)
        pool = torch.cuda.graph_pool_handle()
        # The largest first: what it took, the smaller ones find in the pool. A later replay of one
        # may so write where another left its answer, which was copied from there at once, on the
        # same stream.
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
        # On the stream that replays: libraries keep a workspace a stream.
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):
                probabilities_of(self._network, faces, self._spec, self._temperature, self._dtype)
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads may talk to the driver meanwhile, as the one that reads its figures does.
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
    """Classify faces on their device; what a graph records.

    Args:
        network: On the same device, in evaluation mode.
        faces: uint8[n, h, w], 0-255.
        spec: How to normalise them.
        temperature: What logits are divided by before the softmax.
        dtype: float32, or what convolutions and products compute in.

    Returns:
        float32[n, classes].
    """
    # Without the cache of converted weights: in a graph it would hold memory of the recording.
    with (
        torch.inference_mode(),
        torch.autocast(
            faces.device.type, dtype, enabled=dtype != torch.float32, cache_enabled=False
        ),
    ):
        images = normalise(faces, spec).contiguous(memory_format=torch.channels_last)
        logits = network(images).logits
        return torch.softmax(logits.float() / temperature, dim=1)
