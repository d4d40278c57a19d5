"""Photographs of many different people, made of pictures of faces: known faces at known places.

Each face is laid over the portrait of scikit-image, which gives it hair and shoulders: a face that
was cut off at the chin looks like none to a detector that learnt from photographs.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import skimage.data
from PIL import Image

from service.pictures.boxes import CONFIDENCE, POINTS, Faces, sides
from service.pictures.detector import Detector
from service.pictures.faces import Box

BACKGROUNDS = ("coffee", "rocket", "coins", "grass", "gravel", "brick")
# Around the face's middle, in its sides: to the left and right, above, below.
_REACH, _ABOVE, _BELOW = 1.3, 1.0, 1.6
_SOFT = 0.08  # of a pasted person, on each edge


@dataclass(frozen=True)
class Placed:
    """A face of a collage: who it is, centre and longer side in pixels."""

    name: str
    x: float
    y: float
    side: float

    def is_in(self, box: Box) -> bool:
        """Whether a box is this face: its centre within a third of a side, its side within half."""
        near, large = self.side / 3, max(box.width, box.height)
        x, y = box.x + box.width / 2 - self.x, box.y + box.height / 2 - self.y
        return abs(x) < near and abs(y) < near and 0.5 * self.side < large < 1.6 * self.side


class People:
    """Makes collages."""

    def __init__(self, folder: Path, detector: Detector) -> None:
        """Find the one face of each picture of a folder.

        Args:
            folder: EMOTION/*.jpg, each of one face.
            detector: Says where it is in its picture, which it fills.
        """
        self._portrait = Image.fromarray(skimage.data.astronaut())
        self._model = _largest(detector, self._portrait)
        assert self._model is not None
        found = {path: _largest(detector, _read(path)) for path in sorted(folder.glob("*/*.jpg"))}
        self.without = [path for path, face in found.items() if face is None]
        self._faces = {str(path): face for path, face in found.items() if face is not None}
        self.names = tuple(self._faces)

    def collage(
        self,
        names: tuple[str, ...],
        share: float | tuple[float, ...],
        size: tuple[int, int],
        angle: float,
        random: np.random.Generator,
    ) -> tuple[Image.Image, list[Placed]]:
        """Paste people on a landscape, as many as there is room for.

        Args:
            names: Of `names`.
            share: Side of each face, as a share of the long side; one for all, or one for each.
            size: Width and height.
            angle: By how many degrees each is turned, counterclockwise.
            random: Chooses background and places.
        """
        background = getattr(skimage.data, str(random.choice(BACKGROUNDS)))()
        page = Image.fromarray(background).convert("RGB").resize(size)
        placed: list[Placed] = []
        taken: list[tuple[int, int, int, int]] = []
        shares = (share,) * len(names) if isinstance(share, float) else share
        for name, own in zip(names, shares, strict=True):
            person, mask, x, y = self._person(name, own * max(size), angle)
            corner = _free_place(taken, person.size, size, random)
            if corner is not None:
                page.paste(person, corner, mask)
                placed.append(Placed(name, corner[0] + x, corner[1] + y, own * max(size)))
        return page, placed

    def _person(
        self, name: str, side: float, angle: float
    ) -> tuple[Image.Image, Image.Image, float, float]:
        """Return a person, what of the picture to paste, and where the face's middle is."""
        picture = self._dressed(name, side)
        mask = _soft_edges(picture.size)
        x, y = _REACH * side - picture.width / 2, _ABOVE * side - picture.height / 2
        turned = picture.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        middle = (
            turned.width / 2 + x * cos + y * sin,
            turned.height / 2 - x * sin + y * cos,
        )
        return turned, mask.rotate(angle, Image.Resampling.BICUBIC, expand=True), *middle

    def _dressed(self, name: str, side: float) -> Image.Image:
        model, face, scale = self._model, self._faces[name], 2
        assert model is not None
        long = float(sides(model[None])[0])
        middle = (model[:2] + model[2:4]) / 2
        canvas = self._portrait.resize((512 * scale, 512 * scale), Image.Resampling.BICUBIC)
        laid, mask = _laid(_read(Path(name)), face, model, scale)
        canvas.paste(laid, (0, 0), mask)
        reach = np.array([_REACH, _ABOVE, _REACH, _BELOW]) * [-1, -1, 1, 1] * long
        extent = (np.tile(middle, 2) + reach) * scale
        cut = canvas.crop(tuple(extent.round().astype(int).tolist()))
        size = (round(2 * _REACH * side), round((_ABOVE + _BELOW) * side))
        return cut.resize(size, Image.Resampling.LANCZOS)


def _laid(
    picture: Image.Image, face: Faces, model: Faces, scale: int
) -> tuple[Image.Image, Image.Image]:
    """Return a face as it lies over the model's, point upon point, and an oval mask."""
    size, long = (512 * scale, 512 * scale), float(sides(model[None])[0])
    a, b, x, y = _similarity(_points(model), _points(face))
    matrix = (a / scale, -b / scale, x, b / scale, a / scale, y)
    laid = picture.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    inside = Image.new("L", picture.size, 255).transform(size, Image.Transform.AFFINE, matrix)
    down, across = np.mgrid[: size[1], : size[0]] / scale
    middle = (model[:2] + model[2:4]) / 2
    off = np.hypot((across - middle[0]) / (0.46 * long), (down - middle[1]) / (0.56 * long))
    oval = np.clip((1 - off) / 0.12, 0, 1) * (np.asarray(inside) > 0)
    return laid, Image.fromarray((255 * oval).astype(np.uint8))


def _similarity(
    source: npt.NDArray[np.float64], target: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return a, b, x, y of the turn, scale and shift that best map points to others."""
    u, v = source.T
    ones, zeros = np.ones_like(u), np.zeros_like(u)
    rows = np.concatenate([np.stack([u, -v, ones, zeros], 1), np.stack([v, u, zeros, ones], 1)])
    return np.linalg.lstsq(rows, np.concatenate([target[:, 0], target[:, 1]]), rcond=None)[0]


def _points(face: Faces) -> npt.NDArray[np.float64]:
    return face[CONFIDENCE + 1 :].reshape(len(POINTS), 2).astype(np.float64)


def _soft_edges(size: tuple[int, int]) -> Image.Image:
    ramps = []
    for side in size:
        place = np.arange(side) + 0.5
        ramps.append(np.clip(np.minimum(place, side - place) / (_SOFT * side), 0, 1))
    return Image.fromarray((255 * np.outer(ramps[1], ramps[0])).astype(np.uint8))


def _free_place(
    taken: list[tuple[int, int, int, int]],
    size: tuple[int, int],
    page: tuple[int, int],
    random: np.random.Generator,
) -> tuple[int, int] | None:
    width, height = size
    if width > page[0] or height > page[1]:
        return None
    for _ in range(400):
        x = int(random.integers(0, page[0] - width + 1))
        y = int(random.integers(0, page[1] - height + 1))
        if all(x >= r or x + width <= l or y >= b or y + height <= t for l, t, r, b in taken):  # noqa: E741
            taken.append((x, y, x + width, y + height))
            return x, y
    return None


def _read(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _largest(detector: Detector, picture: Image.Image) -> Faces | None:
    found = detector.detect(picture).faces
    return found[np.argmax(sides(found))] if len(found) else None
