"""What a photograph costs, stage by stage, and what it cost in an older checkout.

usage: python -m benchmarks.photographs WILD [--before CHECKOUT] [--people N]

WILD is a folder of EMOTION/*.jpg, each of one face, that is not committed. The photographs are
collages of those people, saved as JPEG. Medians over them, in CPU milliseconds of one thread.

CHECKOUT is a folder with this project from before RetinaFace (commit a773d5d), set up. The same
files go through its decoder and detector, in turns with ours.
"""

import argparse
import datetime
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from benchmarks.device import name_of
from benchmarks.faces import ALWAYS, MAX_PIXELS, Bench, saved
from service.pictures.boxes import moved
from service.pictures.decode import decode
from service.pictures.faces import cut_faces
from service.pictures.search import FINEST_SIDE
from training.machine import Machine

_TIMES, _ROUNDS = 7, 3
_DETAILED = replace(ALWAYS, detail=FINEST_SIDE)

# Run by the older checkout's interpreter, in its folder: names of files in, CPU ms out.
_BEFORE = """
import statistics, sys, time
import torch
from service.pictures.blazeface import BlazeFace
from service.pictures.detector import Detector
from service.pictures.finder import FaceFinder
from service.pictures.model_file import default_path, read_model
from service.pictures.search import FaceSearch
from training.model.manifest import InputSpec
torch.set_num_threads(1)
finder = FaceFinder(InputSpec(), 50_000_000, Detector(BlazeFace(read_model(default_path()))))
for name in sys.argv[1:]:
    data, spent = open(name, "rb").read(), []
    for _ in range(8):
        began = time.process_time()
        faces = finder.find(data, FaceSearch("always")).faces
        spent.append(1e3 * (time.process_time() - began))
    print(statistics.median(spent[1:]), len(faces))
"""


@dataclass(frozen=True)
class Kind:
    """A kind of photograph.

    Attributes:
        title: In the table.
        size: Columns and rows.
        share: Side of each face, as a share of the long side.
        faces: How many there are.
    """

    title: str
    size: tuple[int, int]
    share: float
    faces: int


@dataclass(frozen=True)
class Costs:
    """CPU ms of one photograph.

    Attributes:
        decode: Of its first decoding.
        again: Of decoding it a second time, for a finer look; 0 where there is none.
        looks: Of the detector.
        cut: Of cutting out the faces and judging their quality.
        found: How many faces were found.
    """

    decode: float
    again: float
    looks: float
    cut: float
    found: int


KINDS = (
    Kind("1024 x 768, one face", (1024, 768), 0.15, 1),
    Kind("640 x 480, one face", (640, 480), 0.25, 1),
    Kind("4000 x 3000, one face", (4000, 3000), 0.15, 1),
    Kind("4000 x 3000, twenty", (4000, 3000), 0.05, 20),
    Kind("4000 x 2250, sixty of 2 to 3 %", (4000, 2250), 0.025, 60),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wild", type=Path, help="a folder of EMOTION/*.jpg, one face each")
    parser.add_argument("--before", type=Path, help="the older checkout")
    parser.add_argument("--people", type=int, default=8, help="photographs a row (%(default)s)")
    options = parser.parse_args()
    bench = Bench(options.wild, options.people)
    print(f"{name_of(Machine(torch.device('cpu')))}, one thread, {datetime.date.today()}\n")
    print("| photograph | decode | decode again | looks | cut, quality | in all | found | ", end="")
    print("before, in all | found | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for kind in KINDS:
        print(row(bench, kind, options.people, options.before), flush=True)


def row(bench: Bench, kind: Kind, number: int, before: Path | None) -> str:
    """Return the table's row of one kind, of `number` photographs."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{seed}.jpg") for seed in range(number)]
        for seed, file in enumerate(files):
            file.write_bytes(photograph(bench, kind, seed))
        ours: list[list[Costs]] = []
        theirs: list[list[tuple[float, int]]] = []
        for _ in range(_ROUNDS):
            ours.append([costs(bench, file.read_bytes()) for file in files])
            if before is not None:
                theirs.append(costs_before(before, files))
    each = [cost for of_round in ours for cost in of_round]
    stages = [
        statistics.median(getattr(c, stage) for c in each)
        for stage in ("decode", "again", "looks", "cut")
    ]
    whole = statistics.median(c.decode + c.again + c.looks + c.cut for c in each)
    cells = [kind.title, *(f"{ms:.1f}" for ms in (*stages, whole))]
    cells.append(f"{statistics.mean(c.found for c in each):.1f}")
    if theirs:
        older = [cost for of_round in theirs for cost in of_round]
        ms = statistics.median(cost for cost, _ in older)
        cells += [f"{ms:.1f}", f"{statistics.mean(n for _, n in older):.1f}", f"{whole / ms:.2f}"]
    return f"| {' | '.join(cells)} |"


def photograph(bench: Bench, kind: Kind, seed: int) -> bytes:
    """Return a photograph of that kind as a JPEG."""
    random = np.random.default_rng(seed)
    names = tuple(map(str, random.choice(bench.people.names, kind.faces, replace=False)))
    return saved(bench.people.collage(names, kind.share, kind.size, 0, random)[0])


def costs(bench: Bench, data: bytes) -> Costs:
    """Return what a photograph costs; the looks are what the other stages leave of the whole."""
    found = bench.finder.find(data, ALWAYS)
    first = decode(data, bench.spec, MAX_PIXELS, ALWAYS)
    assert first.colour is not None
    decoding = cpu_ms(partial(decode, data, bench.spec, MAX_PIXELS, ALWAYS))
    again = 0.0
    if found.picture.grey.shape != first.grey.shape:
        again = cpu_ms(partial(decode, data, bench.spec, MAX_PIXELS, _DETAILED))
    scale = first.width / first.colour.width
    faces = moved(bench.detector.detect(first.colour).faces, scale, 0, 0)
    cutting = cpu_ms(partial(cut_faces, found.picture, bench.spec, faces))
    whole = cpu_ms(partial(bench.finder.find, data, ALWAYS))
    return Costs(decoding, again, whole - decoding - again - cutting, cutting, len(found.faces))


def costs_before(checkout: Path, files: list[Path]) -> list[tuple[float, int]]:
    """Return CPU ms and number of faces of each photograph in the older checkout."""
    python = checkout / ".venv" / "bin" / "python"
    command = [str(python.absolute()), "-c", _BEFORE, *map(str, files)]
    said = subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout
    lines = [line.split() for line in said.splitlines()]
    return [(float(ms), int(faces)) for ms, faces in lines]


def cpu_ms(work: Callable[[], object]) -> float:
    """Return the median CPU milliseconds of this process that `work` takes."""
    work()
    spent = []
    for _ in range(_TIMES):
        began = time.process_time()
        work()
        spent.append(1e3 * (time.process_time() - began))
    return statistics.median(spent)


if __name__ == "__main__":
    main()
