"""The engine with torch: uint8 faces to probabilities; the CPU engine, and the base on a GPU."""

import copy
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from service.engine.cpu.fused import Step, fuse
from service.engine.errors import EngineError
from service.engine.evidence import explain
from service.engine.explanation import Explanation
from service.engine.timing import batch_seconds, largest
from service.kernels import kernels
from training.model.checkpoint import Checkpoint
from training.model.manifest import InputSpec, Manifest
from training.model.network import AttentionFER
from training.model.preprocess import normalise


class TorchEngine:
    """A network ready to infer.

    Attributes:
        device: Where it computes: "cpu" or "cuda:N".
        precision: Of most operations of `infer`: "float32", or on a GPU "bfloat16".
        manifest: Of the checkpoint.
        max_batch: The largest batch that `warm` prepares for.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str = "auto",
        max_batch: int | None = None,
        threads: int | None = None,
    ) -> None:
        """Copy the network to its device, with batch norm folded into the convolutions.

        Args:
            checkpoint: The network and its manifest; not modified.
            device: "auto" (CUDA if available, else the CPU), "cpu", "cuda" or "cuda:N".
            max_batch: Faces in the largest batch, 1 or more; None is the device's default.
            threads: Torch's threads on the CPU, for the whole process; None leaves them unchanged.

        Raises:
            EngineError: The device is not available, or its name is invalid.
            ValueError: `max_batch` or `threads` below 1.
        """
        if (max_batch is not None and max_batch < 1) or (threads is not None and threads < 1):
            raise ValueError("engine: max_batch and threads must be 1 or more")
        if threads is not None:
            torch.set_num_threads(threads)
        self.manifest: Manifest = checkpoint.manifest
        self._device = find_device(device)
        self.device = str(self._device)
        self.max_batch = max_batch or largest(self.device)
        network = copy.deepcopy(checkpoint.network).eval().requires_grad_(False)
        fold_batch_norm(network)
        # Faster on a CPU as well. torch's type hints leave this argument out.
        layout = {"memory_format": torch.channels_last}
        network = network.to(self._device).to(**layout)  # type: ignore[call-overload]
        self._network: AttentionFER = network
        self._logits = _fastest(network, self.manifest.input_spec, self._device)
        self.precision = "float32"

    def infer(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Classify faces; from one thread at a time, never from the event loop.

        Args:
            faces: uint8[n, h, w], 0-255, grey, of the height and width in the manifest.

        Returns:
            float32[n, classes]: probabilities, each row sums to 1, in the manifest's order of
            emotions. The array is not reused.

        Raises:
            ValueError: Faces of another dtype or size.
        """
        self._check(faces)
        if len(faces) == 0:
            return np.empty((0, len(self.manifest.emotions)), np.float32)
        with torch.inference_mode():
            logits = self._logits(self._images(faces))
            probabilities = torch.softmax(logits.float() / self.manifest.temperature, dim=1)
        result: NDArray[np.float32] = probabilities.cpu().numpy()
        return result

    def explain(self, faces: NDArray[np.uint8], emotions: NDArray[np.int64]) -> list[Explanation]:
        """Explain what speaks for an emotion of each face; in the thread that calls `infer`.

        Args:
            faces: As for `infer`.
            emotions: int64[n], for each face the index of the emotion it is answered with.

        Returns:
            An explanation for each face, in order.

        Raises:
            ValueError: Faces of another dtype or size, or emotions that do not fit.
        """
        self._check(faces)
        classes = len(self.manifest.emotions)
        if emotions.shape != (len(faces),) or not np.isin(emotions, range(classes)).all():
            raise ValueError(f"expected an emotion, 0 to {classes - 1}, for each of {len(faces)}")
        if len(faces) == 0:
            return []
        chosen = torch.from_numpy(emotions).to(self._device)
        return explain(self._network, self._images(faces), chosen, self.manifest.input_spec)

    def warm(self) -> dict[int, float]:
        """Run batches of several sizes, so that the first request is as fast as the others.

        Called in the thread that will call `infer`, or before it starts.

        Returns:
            The time of a batch in seconds, by its number of faces.
        """
        spec = self.manifest.input_spec
        self.explain(np.zeros((1, spec.height, spec.width), np.uint8), np.zeros(1, np.int64))
        return batch_seconds(self.infer, spec.height, spec.width, self.max_batch, self._clock())

    def _clock(self) -> Callable[[], float]:
        """Return the clock for batches: CPU time if only this thread computes, else wall time."""
        alone = self._device.type == "cpu" and torch.get_num_threads() == 1
        return time.thread_time if alone else time.perf_counter

    def _check(self, faces: NDArray[np.uint8]) -> None:
        spec = self.manifest.input_spec
        if faces.dtype != np.uint8 or faces.shape[1:] != (spec.height, spec.width):
            raise ValueError(
                f"faces are {faces.dtype}{list(faces.shape)}, "
                f"expected uint8[n, {spec.height}, {spec.width}]"
            )

    def _images(self, faces: NDArray[np.uint8]) -> Tensor:
        """Return faces as the network's input, on its device."""
        # No copy if the memory is contiguous and writable, as that of a batch.
        pixels = torch.from_numpy(np.require(faces, requirements=("C", "W")))
        # Transfer bytes to the device: a quarter of the size of floats.
        images = normalise(pixels.to(self._device), self.manifest.input_spec)
        return images.contiguous(memory_format=torch.channels_last)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Fold every batch norm after a convolution in an `nn.Sequential` into it, in index.

    In evaluation both are affine, so their product is one convolution. Results are equal up to
    rounding.

    Args:
        network: In evaluation mode.

    Returns:
        The same module.
    """
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for index in range(len(module) - 2, -1, -1):
            conv, norm = module[index], module[index + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[index] = fuse_conv_bn_eval(conv, norm)
                del module[index + 1]
    return network


def _fastest(network: AttentionFER, spec: InputSpec, device: torch.device) -> Step:
    """Return the function from images to logits: on a CPU with the C kernels, if compiled."""
    found = kernels() if device.type == "cpu" else None
    return (lambda images: network(images).logits) if found is None else fuse(found, network, spec)


def find_device(name: str) -> torch.device:
    """Find a device.

    Args:
        name: "auto" (CUDA if available, else the CPU), "cpu", "cuda" or "cuda:N".

    Raises:
        EngineError: It is not available, or its name is invalid.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda:0" if available else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal() or name.endswith(":"):
        raise EngineError(f"device is {name!r}, expected auto, cpu, cuda or cuda:N")
    if not available:
        raise EngineError(
            f"device is {name!r}, but no CUDA device was found: give the container a GPU and "
            "install a CUDA build of torch, or use device cpu"
        )
    index = int(number or "0")
    if index >= available:
        raise EngineError(f"device is {name!r}, but there are {available}: 0 to {available - 1}")
    return torch.device("cuda", index)
