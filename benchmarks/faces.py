"""How many faces are found in photographs of many different people.

usage: python -m benchmarks.faces WILD [--faces N]

WILD is a folder of EMOTION/*.jpg, each of one face, that is not committed. The photographs are
collages of those people, 4000 x 2250, saved as JPEG, and go through the finder as requests do.
CPU time of one thread, medians. `benchmarks.photographs` measures the stages.
"""

import argparse
import datetime
import itertools
import statistics
import time
from io import BytesIO
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image

from benchmarks.device import name_of
from benchmarks.people import People, Placed
from service.config import SHIPPED_CHECKPOINT, detector_path
from service.engine.torch_engine import TorchEngine
from service.pictures.detector import Detector
from service.pictures.faces import Face
from service.pictures.finder import FaceFinder
from service.pictures.model_file import read_model
from service.pictures.retinaface import CpuLook, load_network
from service.pictures.search import FaceSearch
from service.server.malloc import tune_malloc
from training.machine import Machine
from training.model.checkpoint import load_checkpoint

SIZES, NUMBERS, TURNS = (0.015, 0.02, 0.03, 0.05, 0.1), (1, 10, 60, 200), (0, 45, 90, 180, 270)
BESIDE, LARGE_FACE = (0.02, 0.03, 0.05), 0.15
EMPTY = ("coffee", "chelsea", "rocket", "coins", "brick", "grass", "gravel", "moon", "page", "text")
EMPTY_SIDES = (640, 1600, 4000)
ALWAYS, MAX_PIXELS = FaceSearch("always", max_faces=256), 50_000_000
SMALL = FaceSearch("always", max_faces=256, min_face=0.02)
LARGE = (4000, 2250)
_ROOM = 0.6  # of a picture that people may cover, or they would not find a place


class Bench:
    """The parts that are measured, and the people."""

    def __init__(self, folder: Path, faces: int) -> None:
        tune_malloc()  # as the service has it
        checkpoint = load_checkpoint(SHIPPED_CHECKPOINT)
        self.engine, self.faces = TorchEngine(checkpoint, device="cpu"), faces
        self.spec = checkpoint.manifest.input_spec
        self.detector = Detector(CpuLook(load_network(read_model(detector_path()))))
        self.finder = FaceFinder(self.spec, MAX_PIXELS, self.detector)
        self.people = People(folder, self.detector)

    def emotions(self, faces: list[Face]) -> list[int]:
        """Return the number of each face's emotion."""
        if not faces:
            return []
        pixels = np.stack([face.pixels for face in faces])
        return [int(answer.argmax()) for answer in self.engine.infer(pixels)]

    def row(self, share: float, number: int, angle: float) -> str:
        """Return found, false and CPU ms a picture, of at least `faces` faces; and agreement."""
        random = np.random.default_rng(round(1e4 * share) + number)
        hits = false = all_faces = same = 0
        spent = []
        while all_faces < self.faces:
            names = tuple(map(str, random.choice(self.people.names, number, replace=False)))
            seed = int(random.integers(1 << 31))
            found, answers, placed, cost = self._answers(names, share, angle, seed)
            upright = self._answers(names, share, 0, seed)[1] if angle else answers
            spent.append(cost)
            all_faces, hits = all_faces + len(placed), hits + len(answers)
            false += found - len(answers)
            same += sum(upright.get(name) == emotion for name, emotion in answers.items())
        agreement = f" | {same / max(1, hits):.0%}" if angle else " |"
        cost = statistics.median(spent)
        return f"{all_faces} | {hits / all_faces:.1%} | {false}{agreement} | {cost:.0f}"

    def beside(self, share: float, search: FaceSearch) -> str:
        """Return the same of one face with a large face in the same picture; false ones too."""
        random = np.random.default_rng(round(1e4 * share))
        hits = false = 0
        spent = []
        for _ in range(self.faces):
            names = tuple(map(str, random.choice(self.people.names, 2, replace=False)))
            picture, placed = self.people.collage(names, (LARGE_FACE, share), LARGE, 0, random)
            faces, cost = self._found(saved(picture), search)
            spent.append(cost)
            hits += any(placed[1].is_in(face.box) for face in faces)
            false += sum(not any(p.is_in(face.box) for p in placed) for face in faces)
        return f"{self.faces} | {hits / self.faces:.1%} | {false} | {statistics.median(spent):.0f}"

    def empty(self) -> str:
        """Return how many faces are found where there are none."""
        pictures = false = 0
        for name, side, quarters in itertools.product(EMPTY, EMPTY_SIDES, range(4)):
            picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
            scale = side / max(picture.size)
            size = (round(picture.width * scale), round(picture.height * scale))
            turned = picture.resize(size).rotate(90 * quarters, expand=True)
            false += len(self._found(saved(turned), ALWAYS)[0])
            pictures += 1
        return f"{pictures} pictures without anybody: {false} faces found"

    def _found(self, data: bytes, search: FaceSearch) -> tuple[list[Face], float]:
        began = time.process_time()
        faces = self.finder.find(data, search).faces
        return faces, 1e3 * (time.process_time() - began)

    def _answers(
        self, names: tuple[str, ...], share: float, angle: float, seed: int
    ) -> tuple[int, dict[str, int], list[Placed], float]:
        """Return how many were found, each known one's emotion, who is there, and CPU ms."""
        random = np.random.default_rng(seed)
        picture, placed = self.people.collage(names, share, LARGE, angle, random)
        faces, cost = self._found(saved(picture), ALWAYS)
        emotions, known = self.emotions(faces), {}
        for face, emotion in zip(faces, emotions, strict=True):
            for place in placed:
                if place.name not in known and place.is_in(face.box):
                    known[place.name] = emotion
                    break
        return len(faces), known, placed, cost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wild", type=Path, help="a folder of EMOTION/*.jpg, one face each")
    parser.add_argument("--faces", type=int, default=60, help="at least, a row (%(default)s)")
    options = parser.parse_args()
    bench = Bench(options.wild, options.faces)
    print(f"{name_of(Machine(torch.device('cpu')))}, one thread, {datetime.date.today()}")
    people = bench.people
    print(f"\n{len(people.names)} pictures have a face, {len(people.without)} none is found in")
    head = "| faces | found | false | emotion as upright | CPU ms |\n|---|---|---|---|---|---|---|"
    print(f"\n| side, of the long side | a picture {head}")
    for share, number in itertools.product(SIZES, NUMBERS):
        if number * 2.6**2 * (share * LARGE[0]) ** 2 < _ROOM * LARGE[0] * LARGE[1]:
            print(f"| {share:.1%} | {number} | {bench.row(share, number, 0)} |", flush=True)
    print(f"\n| turned, degrees | side, a picture {head}")
    for angle, (share, number) in itertools.product(TURNS, ((0.1, 1), (0.05, 10))):
        print(
            f"| {angle} | {share:.0%}, {number} | {bench.row(share, number, angle)} |", flush=True
        )
    print("\n| side, beside a face of 15 % | min_face | faces | found | false | CPU ms |")
    print("|---|---|---|---|---|---|")
    for share, search in itertools.product(BESIDE, (ALWAYS, SMALL)):
        asked = "none" if search.min_face is None else f"{search.min_face:g}"
        print(f"| {share:.0%} | {asked} | {bench.beside(share, search)} |", flush=True)
    print(f"\n{bench.empty()}")


def saved(picture: Image.Image) -> bytes:
    """Return the picture as a JPEG."""
    file = BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    main()
