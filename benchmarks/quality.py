"""How sure and how right the answers about faces are, by the quality of their pixels.

usage: python -m benchmarks.quality WILD [--out FILE]

WILD is a folder of EMOTION/*.jpg, each of one face, that is not committed. Each goes through the
finder as a request does, then through the shipped checkpoint under the prior `training`; of several
faces the largest counts. Pictures of one size or brightness differ from others in more than that:
film stills are small and dim. So the same pictures are also shrunk, and only that differs.
"""

import argparse
import datetime
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.device import name_of
from service.config import SHIPPED_CHECKPOINT, detector_path
from service.engine.torch_engine import TorchEngine
from service.pictures.detector import Detector
from service.pictures.faces import Face
from service.pictures.finder import FaceFinder
from service.pictures.model_file import read_model
from service.pictures.quality import LEAST_SHARPNESS, LEAST_SIZE, Quality
from service.pictures.retinaface import CpuLook, load_network
from service.pictures.search import FaceSearch
from training.machine import Machine
from training.model.checkpoint import load_checkpoint

_ONE = FaceSearch("always", max_faces=1)
_BATCH = 32
_EMOTIONS = ("anger", "happiness", "neutral", "sadness", "surprise")
_SHRUNK_TO, _EACH = (96, 48, 32, 24, 16), 4  # pixels of a face; one picture in so many


@dataclass(frozen=True)
class Answer:
    """The quality of a face, the probability of the emotion it was given, and whether it is so."""

    quality: Quality
    confidence: float
    right: bool


class Bench:
    """Finds and names faces."""

    def __init__(self) -> None:
        """Load the shipped checkpoint and the detector."""
        checkpoint = load_checkpoint(SHIPPED_CHECKPOINT)
        self._engine = TorchEngine(checkpoint, device="cpu")
        self._names = checkpoint.manifest.emotions
        detector = Detector(CpuLook(load_network(read_model(detector_path()))))
        self._finder = FaceFinder(checkpoint.manifest.input_spec, 50_000_000, detector)

    def answer_all(self, pictures: list[tuple[str, bytes]]) -> list[Answer]:
        """Return the answers to pictures, each with its emotion; none where no face is found."""
        found = [(emotion, self._finder.find(data, _ONE).faces) for emotion, data in pictures]
        faces = [(emotion, each[0]) for emotion, each in found if each]
        answers: list[Answer] = []
        for start in range(0, len(faces), _BATCH):
            some = faces[start : start + _BATCH]
            probabilities = self._engine.infer(np.stack([face.pixels for _, face in some]))
            for (emotion, face), each in zip(some, probabilities, strict=True):
                answers.append(_answer(emotion, face, each, self._names))
        return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wild", type=Path, help="a folder of EMOTION/*.jpg, one face each")
    parser.add_argument("--out", type=Path, default=Path("docs/results/quality.md"))
    options = parser.parse_args()
    bench = Bench()
    paths = sorted(p for e in _EMOTIONS for p in (options.wild / e).glob("*.jpg"))
    pictures = [(path.parent.name, path.read_bytes()) for path in paths]
    text = report(bench.answer_all(pictures), len(pictures))
    options.out.write_text(text + report_shrunk(bench, pictures[::_EACH]))


def report_shrunk(bench: Bench, pictures: list[tuple[str, bytes]]) -> str:
    """Return the table of pictures that are shrunk until their face has some size."""
    lines = [
        "",
        "The same pictures, shrunk until the face of each has a size:",
        "",
        "| faces | number | mean confidence | accuracy |",
        "|---|---|---|---|",
    ]
    large = []
    for emotion, data in pictures:
        for answer in bench.answer_all([(emotion, data)]):
            if answer.quality.size >= _SHRUNK_TO[0]:
                large.append((emotion, data, answer))
    lines.append(_row("as they are", [answer for _, _, answer in large]))
    for size in _SHRUNK_TO:
        small = [(e, _shrunk(data, size / answer.quality.size)) for e, data, answer in large]
        lines.append(_row(f"{size} px", bench.answer_all(small)))
    return "\n".join(lines) + "\n"


def _shrunk(data: bytes, scale: float) -> bytes:
    with Image.open(io.BytesIO(data)) as picture:
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "PNG")
    return file.getvalue()


def _answer(emotion: str, face: Face, probabilities: np.ndarray, names: tuple[str, ...]) -> Answer:
    assert face.quality is not None
    best = int(probabilities.argmax())
    return Answer(face.quality, float(probabilities[best]), names[best] == emotion)


def report(answers: list[Answer], pictures: int) -> str:
    """Return the tables as Markdown."""
    lines = [
        "# Answers by the quality of a face",
        "",
        "`python -m benchmarks.quality WILD`: photographs of single faces in folders by emotion:",
        f"{', '.join(_EMOTIONS)}; the shipped checkpoint, the prior",
        "`training`. Accuracy has its 95 % interval (Wilson). These are validation figures: the",
        "crop was chosen on the same pictures.",
        "",
        f"{name_of(Machine(torch.device('cpu')))}, {datetime.date.today()}",
        "",
        f"In {len(answers)} of {pictures} pictures a face is found.",
        "",
        "| faces | number | mean confidence | accuracy |",
        "|---|---|---|---|",
        _row("all", answers),
        _row("usable", [a for a in answers if a.quality.usable]),
        _row("not usable", [a for a in answers if not a.quality.usable]),
    ]
    for title, of, least in (
        ("size, px", lambda q: q.size, (0.0, LEAST_SIZE, 48.0, 96.0, 192.0)),
        ("sharpness", lambda q: q.sharpness, (0.0, LEAST_SHARPNESS, 0.075, 0.1, 0.125)),
        ("brightness", lambda q: q.brightness, (0.0, 0.1, 0.25, 0.4, 0.55, 0.7)),
    ):
        lines += _rows(title, of, least, answers)
    return "\n".join(lines) + "\n"


def _rows(
    title: str,
    of: Callable[[Quality], float],
    least: tuple[float, ...],
    answers: list[Answer],
) -> list[str]:
    """Return a table's row for each range from one of `least` to the next."""
    rows = []
    for low, high in zip(least, (*least[1:], math.inf), strict=True):
        some = [answer for answer in answers if low <= of(answer.quality) < high]
        name = f"{low:g} to {high:g}" if high < math.inf else f"from {low:g}"
        rows.append(_row(f"{title}: {name}", some))
    return rows


def _row(name: str, answers: list[Answer]) -> str:
    if not answers:
        return f"| {name} | 0 | | |"
    right, number = sum(answer.right for answer in answers), len(answers)
    confidence = sum(answer.confidence for answer in answers) / number
    low, high = _interval(right, number)
    return (
        f"| {name} | {number} | {confidence:.2f} | {right / number:.2f} ({low:.2f}, {high:.2f}) |"
    )


def _interval(right: int, number: int, z: float = 1.96) -> tuple[float, float]:
    """Return Wilson's interval of a share."""
    share, spread = right / number, z * z / number
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / number + spread / (4 * number))
    return middle - half, middle + half


if __name__ == "__main__":
    main()
