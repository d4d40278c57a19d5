"""How many faces are found in photographs, and what a photograph costs, stage by stage.

usage: python -m benchmarks.faces WILD [--faces N]

WILD is a folder of EMOTION/*.jpg, each of one face, that is not committed. The photographs are
collages of those people, 4000 x 2250, saved as JPEG and found through the finder as requests are.
CPU time of one thread, medians; finding includes cutting out.
"""

import argparse
import datetime
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
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
from service.pictures.decode import decode
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
EMPTY = ("coffee", "chelsea", "rocket", "coins", "brick", "grass", "gravel", "moon", "page", "text")
ALWAYS, MAX_PIXELS = FaceSearch("always", max_faces=256), 50_000_000
LARGE = (4000, 2250)
_ROOM = 0.6  # of a picture that people may cover, or they would not find a place


class Bench:
    """The parts that are measured, and the people."""

    def __init__(self, folder: Path, faces: int) -> None:
        tune_malloc()  # as the service has it
        checkpoint = load_checkpoint(SHIPPED_CHECKPOINT)
        self.engine, self.faces = TorchEngine(checkpoint, device="cpu"), faces
        self.spec = checkpoint.manifest.input_spec
        detector = Detector(CpuLook(load_network(read_model(detector_path()))))
        self.finder = FaceFinder(self.spec, MAX_PIXELS, detector)
        self.people = People(folder, detector)

    def find(self, picture: Image.Image) -> list[Face]:
        """Return the faces of a picture, saved as a JPEG first."""
        return self.finder.find(saved(picture), ALWAYS).faces

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

    def _answers(
        self, names: tuple[str, ...], share: float, angle: float, seed: int
    ) -> tuple[int, dict[str, int], list[Placed], float]:
        """Return how many were found, each known one's emotion, who is there, and CPU ms."""
        random = np.random.default_rng(seed)
        picture, placed = self.people.collage(names, share, LARGE, angle, random)
        data = saved(picture)
        began = time.process_time()
        faces = self.finder.find(data, ALWAYS).faces
        cost = 1e3 * (time.process_time() - began)
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
    empty = [len(bench.find(Image.fromarray(array_of(n)).convert("RGB"))) for n in EMPTY]
    print(f"\n{len(EMPTY)} pictures without anybody: {sum(empty)} faces found")
    print("\n| photograph | decode, ms | find, ms | network, ms | in all |\n|---|---|---|---|---|")
    for title, share, number, size in (
        ("1024 x 768", 0.15, 1, (1024, 768)),
        ("640 x 480", 0.3, 1, (640, 480)),
        ("4000 x 3000, one face", 0.15, 1, (4000, 3000)),
        ("4000 x 3000, twenty", 0.05, 20, (4000, 3000)),
        ("4000 x 2250, sixty", 0.025, 60, LARGE),
    ):
        print(f"| {title} | {stages(bench, share, number, size)} |", flush=True)


def stages(bench: Bench, share: float, number: int, size: tuple[int, int]) -> str:
    """Return the cells of a photograph's costs; over some, as places and people matter."""
    rows = []
    for seed in range(5):
        random = np.random.default_rng(seed)
        names = tuple(map(str, random.choice(bench.people.names, number, replace=False)))
        data = saved(bench.people.collage(names, share, size, 0, random)[0])
        faces = bench.finder.find(data, ALWAYS).faces
        pixels = np.array([face.pixels for face in faces])
        decoding = cpu_ms(partial(decode, data, bench.spec, MAX_PIXELS, ALWAYS))
        whole = cpu_ms(partial(bench.finder.find, data, ALWAYS))
        network = cpu_ms(partial(bench.engine.infer, pixels))
        rows.append((decoding, whole - decoding, network, whole + network))
    return " | ".join(f"{statistics.median(column):.1f}" for column in zip(*rows, strict=True))


def array_of(name: str) -> np.ndarray:
    return getattr(skimage.data, name)()


def cpu_ms(work: Callable[[], object], times: int = 9) -> float:
    """Return the median CPU milliseconds of this process that `work` takes."""
    work()
    spent = []
    for _ in range(times):
        began = time.process_time()
        work()
        spent.append(1e3 * (time.process_time() - began))
    return statistics.median(spent)


def saved(picture: Image.Image) -> bytes:
    """Return the picture as a JPEG."""
    file = BytesIO()
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


if __name__ == "__main__":
    main()
