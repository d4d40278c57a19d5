"""What every peer serves: the same checkpoint, behind the same decoder.

ENGINE chooses: `plain`, the network as torch runs it without further thought; `ours`, the
service's own engine; `nothing`, a constant, to see what the server alone costs.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from service.config import SHIPPED_CHECKPOINT
from service.engine.cuda.engine import CudaEngine
from service.engine.timing import largest
from service.engine.torch_engine import TorchEngine, find_device
from service.pictures.decode import decode, prepare_pillow
from training.model.checkpoint import Checkpoint, load_checkpoint
from training.model.manifest import InputSpec
from training.model.preprocess import normalise

PORT = int(os.environ.get("PORT", "8000"))
WORKERS = int(os.environ.get("WORKERS", "1"))
DEVICE = find_device(os.environ.get("DEVICE", "auto"))
MAX_BATCH = largest(str(DEVICE))
"""Faces: 32 on a CPU, where more gain nothing, and 256 on CUDA; what the service tries at most."""
MAX_PIXELS = 50_000_000

Faces = NDArray[np.uint8]
Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """A checkpoint ready to serve: `decode`, then `infer`, then `answer`."""

    emotions: tuple[str, ...]
    spec: InputSpec
    infer: Callable[[Faces], Probabilities]
    begin: Callable[[Faces], Callable[[], Probabilities]] | None = None  # of our engine on CUDA

    def decode(self, data: bytes) -> Faces:
        """Return uint8[h, w]; raises the service's own errors on what is not a picture."""
        grey = Image.fromarray(decode(data, self.spec, MAX_PIXELS).grey)
        size, spec = (self.spec.width, self.spec.height), self.spec
        if grey.size != size:  # as the service takes a whole picture for the face
            grey = grey.resize(size, Image.Resampling[spec.resample.upper()])
        return np.asarray(grey)

    def answer(self, probabilities: Probabilities) -> dict[str, Any]:
        """Return the body for float32[classes]."""
        values = [round(value, 6) for value in probabilities.tolist()]
        return {
            "emotion": self.emotions[values.index(max(values))],
            "probabilities": dict(zip(self.emotions, values, strict=True)),
        }


def open_model() -> Model:
    """Load the shipped checkpoint, run by the engine that ENGINE names, and warm it."""
    torch.set_num_threads(1)
    prepare_pillow(MAX_PIXELS)
    checkpoint = load_checkpoint(SHIPPED_CHECKPOINT)
    engine = ENGINES[os.environ.get("ENGINE", "plain")](checkpoint)
    spec = checkpoint.manifest.input_spec
    for count in sorted({1, 2, 8, 32, MAX_BATCH}):
        engine.infer(np.zeros((count, spec.height, spec.width), np.uint8))
    return Model(checkpoint.manifest.emotions, spec, engine.infer, getattr(engine, "begin", None))


class Plain:
    """The network as torch runs it."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.network, self.manifest = checkpoint.network.eval().to(DEVICE), checkpoint.manifest

    @torch.inference_mode()
    def infer(self, faces: Faces) -> Probabilities:
        """Classify faces."""
        images = normalise(torch.from_numpy(np.array(faces)).to(DEVICE), self.manifest.input_spec)
        logits = self.network(images).logits
        return torch.softmax(logits / self.manifest.temperature, dim=1).cpu().numpy()


def _ours(checkpoint: Checkpoint) -> TorchEngine:
    kind = CudaEngine if DEVICE.type == "cuda" else TorchEngine
    return kind(checkpoint, str(DEVICE), max_batch=MAX_BATCH, threads=1)


class Nothing:
    """No network: the same probability for every emotion."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        classes = len(checkpoint.manifest.emotions)
        self.row = np.full(classes, 1 / classes, np.float32)

    def infer(self, faces: Faces) -> Probabilities:
        """Answer at once."""
        return np.tile(self.row, (len(faces), 1))


ENGINES: dict[str, Callable[[Checkpoint], Any]] = {
    "plain": Plain,
    "ours": _ours,
    "nothing": Nothing,
}
