"""What every peer serves: the same checkpoint, behind the same decoder and face detector.

DETECT is what requests to our service call so: "never" takes every picture for a face. ENGINE
chooses: `plain`, the network as torch runs it without further thought; `ours`, the
service's own engine; `nothing`, a constant, to see what the server alone costs.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from service.config import SHIPPED_CHECKPOINT, detector_path
from service.engine.cuda.engine import CudaEngine
from service.engine.prior import Priors
from service.engine.timing import largest
from service.engine.torch_engine import TorchEngine, find_device
from service.pictures.decode import prepare_pillow
from service.pictures.detector import Detector
from service.pictures.finder import FaceFinder
from service.pictures.model_file import read_model
from service.pictures.retinaface import CpuLook, load_network
from service.pictures.search import NO_SEARCH, FaceSearch
from training.model.checkpoint import Checkpoint, load_checkpoint
from training.model.preprocess import normalise
from training.model.prior import reweigh

PORT = int(os.environ.get("PORT", "8000"))
WORKERS = int(os.environ.get("WORKERS", "1"))
ENGINE = os.environ.get("ENGINE", "plain")
DEVICE = find_device(os.environ.get("DEVICE", "auto"))
MAX_BATCH = largest(str(DEVICE))
"""Faces: 32 on a CPU, where more gain nothing, and 256 on CUDA; what the service tries at most."""
MAX_PIXELS = 50_000_000
SEARCH = NO_SEARCH if os.environ.get("DETECT") == "never" else FaceSearch()
"""Which faces are wanted: as the service's requests have it that say nothing else."""

Faces = NDArray[np.uint8]
Probabilities = NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """What a picture's faces need to be classified; a stage may send it to another process.

    Attributes:
        boxes: Of each face: x, y, width and height.
        faces: uint8[n, h, w].
    """

    boxes: list[dict[str, int]]
    faces: Faces


@dataclass(frozen=True)
class Model:
    """A checkpoint ready to serve: `find` for each picture, then `answer` for a batch of them."""

    priors: Priors
    finder: FaceFinder
    infer: Callable[[Faces], Probabilities]
    begin: Callable[[Faces], Callable[[], Probabilities]] | None = None  # of our engine on CUDA

    def find(self, data: bytes, search: FaceSearch = SEARCH) -> Found:
        """Decode a picture and cut out its faces; raises the service's own errors."""
        found = self.finder.find(data, search).faces
        spec = self.priors.manifest.input_spec
        pixels = [face.pixels for face in found]
        faces = np.stack(pixels) if found else np.empty((0, spec.height, spec.width), np.uint8)
        return Found([asdict(face.box) for face in found], faces)

    def answer(self, pictures: Sequence[Found]) -> list[dict[str, Any]]:
        """Classify the faces of several pictures together; returns each picture's body."""
        rows = iter(self._classify(np.concatenate([picture.faces for picture in pictures])))
        return [
            {"faces": [{"box": box} | self._describe(next(rows)) for box in picture.boxes]}
            for picture in pictures
        ]

    def _classify(self, faces: Faces) -> list[list[float]]:
        """Return the probabilities of any number of faces, under the service's default prior."""
        rows: list[list[float]] = []
        for start in range(0, len(faces), MAX_BATCH):
            probabilities = self.infer(faces[start : start + MAX_BATCH])
            rows += reweigh(probabilities, self.priors.default.adjustment).tolist()
        return rows

    def _describe(self, row: list[float]) -> dict[str, Any]:
        values, emotions = [round(value, 6) for value in row], self.priors.manifest.emotions
        return {
            "emotion": emotions[values.index(max(values))],
            "probabilities": dict(zip(emotions, values, strict=True)),
        }


def open_model(engine_name: str = ENGINE) -> Model:
    """Load the face detector and the shipped checkpoint, and warm the engine of that name."""
    torch.set_num_threads(1)
    prepare_pillow(MAX_PIXELS)
    checkpoint = load_checkpoint(SHIPPED_CHECKPOINT)
    engine = ENGINES[engine_name](checkpoint)
    spec = checkpoint.manifest.input_spec
    for count in sorted({1, 2, 8, 32, MAX_BATCH}):
        engine.infer(np.zeros((count, spec.height, spec.width), np.uint8))
    detector = Detector(CpuLook(load_network(read_model(detector_path()))))
    finder = FaceFinder(spec, MAX_PIXELS, detector)
    begin = getattr(engine, "begin", None)
    return Model(Priors(checkpoint.manifest), finder, engine.infer, begin)


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
