"""How many faces are found in photographs, and what a photograph costs, stage by stage.

usage: python -m benchmarks.faces [--pictures N]

The photographs are collages of scikit-image's portrait, one person's, so that nothing is committed:
read the shares as an upper bound. CPU time of one thread, medians; finding includes cutting out.
"""

import argparse
import datetime
import statistics
import time
from collections.abc import Callable
from io import BytesIO

import numpy as np
import skimage.data
import torch
from PIL import Image
from service.pictures.blazeface import BlazeFace

from benchmarks.training import name_of
from service.config import SHIPPED_CHECKPOINT
from service.engine.torch_engine import Engine
from service.pictures.decode import decode
from service.pictures.detector import Detector
from service.pictures.faces import Face, find_faces
from service.pictures.model_file import default_path, read_model
from service.pictures.search import FaceSearch
from tests.service.collages import Placed, collage
from training.machine import Machine
from training.model.checkpoint import load_checkpoint

SIZES = (24, 32, 40, 48, 64, 96, 128, 200, 250)
ANGLES = (0, 15, 30, 45, 90, 180)
EMPTY = ("coffee", "chelsea", "rocket", "coins", "brick", "grass", "gravel", "moon", "page", "text")
ALWAYS, MAX_PIXELS = FaceSearch("always"), 50_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=12, help="a row (%(default)s)")
    options = parser.parse_args()
    checkpoint = load_checkpoint(SHIPPED_CHECKPOINT)
    engine = Engine(checkpoint, device="cpu")
    detector = Detector(BlazeFace(read_model(default_path())))
    spec = checkpoint.manifest.input_spec

    def find(picture: Image.Image) -> list[Face]:
        return find_faces(decode(saved(picture), spec, MAX_PIXELS, ALWAYS), spec, ALWAYS, detector)

    machine = name_of(Machine(torch.device("cpu")))
    print(f"{machine}, one thread, {datetime.date.today()}")
    print(
        "\n1024 x 768, two faces a picture\n| face, px | found | extra a picture |\n|---|---|---|"
    )
    for size in SIZES:
        print(f"| {size} | {row(find, options.pictures, size, 0)} |")
    print("\n| turned, degrees (96 px) | found | extra a picture |\n|---|---|---|")
    for angle in ANGLES:
        print(f"| {angle} | {row(find, options.pictures, 96, angle)} |")
    empty = [len(find(Image.fromarray(getattr(skimage.data, n)()).convert("RGB"))) for n in EMPTY]
    print(f"\n{len(EMPTY)} pictures without anybody: {sum(empty)} faces found")
    print("\n| photograph | decode, ms | find, ms | network, ms | in all |\n|---|---|---|---|---|")
    for name, size in (("1024 x 768", (1024, 768)), ("12 megapixels", (4000, 3000))):
        scale = size[0] / 1024
        places = [Placed(330 * scale, 380 * scale, 150 * scale)]
        data = saved(collage(*places, size=size))
        picture = decode(data, spec, MAX_PIXELS, ALWAYS)
        (face,) = find_faces(picture, spec, ALWAYS, detector)
        costs = [
            cpu_ms(lambda data=data: decode(data, spec, MAX_PIXELS, ALWAYS)),
            cpu_ms(lambda picture=picture: find_faces(picture, spec, ALWAYS, detector)),
            cpu_ms(lambda face=face: engine.infer(face.pixels[None])),
        ]
        cells = " | ".join(f"{cost:.1f}" for cost in (*costs, sum(costs)))
        print(f"| {name}, {len(data) / 1e6:.2f} MB | {cells} |")


def row(find: Callable[[Image.Image], list[Face]], pictures: int, size: int, angle: int) -> str:
    """Return the share of faces found and what else was, over pictures of two."""
    random = np.random.default_rng(size + angle)
    hits = extra = 0
    for _ in range(pictures):
        reach = max(size, 24)
        left, right = random.uniform(reach, 512 - reach), random.uniform(512 + reach, 1024 - reach)
        heights = random.uniform(reach, 768 - reach, 2)
        places = [Placed(left, heights[0], size), Placed(right, heights[1], size)]
        boxes = [face.box for face in find(collage(*places, angle=angle))]
        matched = sum(any(place.is_in(box) for box in boxes) for place in places)
        hits, extra = hits + matched, extra + len(boxes) - matched
    return f"{hits / (2 * pictures):.0%} | {extra / pictures:.2f}"


def cpu_ms(work: Callable[[], object], times: int = 25) -> float:
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
