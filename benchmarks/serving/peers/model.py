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
from service.inference.engine import Engine
from service.pictures.decode import decode, prepare_pillow
from training.model.checkpoint import Checkpoint, load_checkpoint
from training.model.preprocess import InputSpec, normalise

PORT = int(os.environ.get("PORT", "8000"))
WORKERS = int(os.environ.get("WORKERS", "1"))
MAX_BATCH = 32
MAX_PIXELS = 50_000_000

Faces = NDArray[np.uint8]
Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """A checkpoint ready to serve: `decode`, then `infer`, then `answer`."""

    emotions: tuple[str, ...]
    spec: InputSpec
    infer: Callable[[Faces], Probabilities]

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
    infer = ENGINES[os.environ.get("ENGINE", "plain")](checkpoint)
    spec = checkpoint.manifest.input_spec
    for count in (1, 2, 8, MAX_BATCH):
        infer(np.zeros((count, spec.height, spec.width), np.uint8))
    return Model(checkpoint.manifest.emotions, spec, infer)


def _plain(checkpoint: Checkpoint) -> Callable[[Faces], Probabilities]:
    network, manifest = checkpoint.network.eval(), checkpoint.manifest

    @torch.inference_mode()
    def infer(faces: Faces) -> Probabilities:
        images = normalise(torch.from_numpy(np.array(faces)), manifest.input_spec)
        return torch.softmax(network(images).logits / manifest.temperature, dim=1).numpy()

    return infer


def _ours(checkpoint: Checkpoint) -> Callable[[Faces], Probabilities]:
    return Engine(checkpoint, device="cpu", max_batch=MAX_BATCH, threads=1).infer


def _nothing(checkpoint: Checkpoint) -> Callable[[Faces], Probabilities]:
    row = np.full(len(checkpoint.manifest.emotions), 1 / len(checkpoint.manifest.emotions))
    return lambda faces: np.tile(row.astype(np.float32), (len(faces), 1))


ENGINES = {"plain": _plain, "ours": _ours, "nothing": _nothing}
