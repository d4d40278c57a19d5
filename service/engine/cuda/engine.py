"""The engine on a CUDA device, with CUDA graphs and two batches in flight."""

import copy
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from service.engine.cuda.graphs import GraphedNetwork
from service.engine.errors import EngineError
from service.engine.torch_engine import TorchEngine
from training.model.checkpoint import Checkpoint
from training.model.network import AttentionFER

Precision = Literal["auto", "float32"]


class CudaEngine(TorchEngine):
    """A network ready to infer on a GPU."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str = "cuda",
        max_batch: int | None = None,
        threads: int | None = None,
        precision: Precision = "auto",
        memory_share: float = 1.0,
    ) -> None:
        """Copy the network to its device within a memory limit, and record it; takes seconds.

        Args:
            checkpoint: As for `TorchEngine`.
            device: "cuda" or "cuda:N".
            max_batch: Faces in the largest batch.
            threads: Torch's threads on the CPU.
            precision: "auto" is bfloat16 if the device supports it natively.
            memory_share: Largest share of the device's memory for tensors, above 0, up to 1; the
                driver's context is not included.

        Raises:
            EngineError: The device is not available, or its memory does not suffice.
        """
        bound_memory(device, memory_share)
        try:
            super().__init__(checkpoint, device, max_batch, threads)
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            dtype = torch.bfloat16 if precision == "auto" and native else torch.float32
            self.precision = str(dtype).removeprefix("torch.")
            self._graphed = self._record(dtype) if can_record(self._network) else None
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"the network does not fit into {memory_share:.0%} of the memory of {device}: "
                "raise FER_GPU_MEMORY, lower FER_MAX_BATCH, or see who else uses the GPU"
            ) from error

    def infer(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify faces, as `TorchEngine.infer` does; also while one batch is begun."""
        self._check(faces)
        if self._graphed is None or not 1 <= len(faces) <= self.max_batch:
            return super().infer(faces)
        return self._graphed.infer(faces)

    def begin(self, faces: NDArray[np.uint8]) -> Callable[[], NDArray[np.float32]]:
        """Start a batch without waiting for it; from the thread that calls `infer`.

        Args:
            faces: As for `infer`. At most two batches may be begun and not finished.

        Returns:
            A function, to be called once, that waits and returns the result of `infer`.

        Raises:
            ValueError: Faces of another dtype or size.
        """
        self._check(faces)
        if self._graphed is None or not 1 <= len(faces) <= self.max_batch:
            return lambda: super(CudaEngine, self).infer(faces)
        return self._graphed.begin(faces)

    def _record(self, dtype: torch.dtype) -> GraphedNetwork:
        spec, temperature = self.manifest.input_spec, self.manifest.temperature
        network = convert(self._network, dtype)
        return GraphedNetwork(network, spec, temperature, self.max_batch, dtype)


def bound_memory(device: str, share: float) -> None:
    """Let torch take at most a share of a device's memory, in this process.

    Args:
        device: "cuda" or "cuda:N"; a missing one is ignored here, and refused by the engine.
        share: Above 0, up to 1.
    """
    index = int(device.partition(":")[2] or "0")
    if torch.cuda.is_available() and index < torch.cuda.device_count():
        torch.cuda.set_per_process_memory_fraction(share, index)


def can_record(network: AttentionFER) -> bool:
    """Return whether a network's forward pass can be recorded.

    An affine transform copies the identity matrix from the host in every pass, which a recording
    does not allow.
    """
    return network.stn is None or network.stn.transform == "similarity"


def convert(network: AttentionFER, dtype: torch.dtype) -> AttentionFER:
    """Return a copy whose convolutions and products have weights of another type.

    Under autocast they would be converted in every pass, to the same numbers.

    Args:
        network: Not modified.
        dtype: Of the weights.
    """
    converted = copy.deepcopy(network)
    for module in converted.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(dtype)
    return converted
