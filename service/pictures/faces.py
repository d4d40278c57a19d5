"""The faces of a picture: their boxes, and the crops that the network takes."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.pictures.boxes import CONFIDENCE, POINTS, Faces, rolls
from service.pictures.decode import Picture
from service.pictures.quality import Quality, judge
from training.model.grey import resized
from training.model.manifest import InputSpec

# A training crop is the square around the middle of the detector's box, as wide as the box's longer
# side: measured on PublicTest (docs/decisions/0007).
_ASPECT = 0.75  # of an upright face's box, width to height
# Of a whole picture: pixels of the shorter side, and grey levels from dark to light.
_LEAST_SIDE, _LEAST_TONES = 8, 16
_TURNED_FROM = math.radians(20)  # below, the spatial transformer straightens it


@dataclass(frozen=True)
class Box:
    """A rectangle in the upright original, in pixels from its top left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Face:
    """One face.

    Attributes:
        box: Where it is in the picture.
        pixels: uint8[spec.height, spec.width], 0-255, grey.
        crop: What of the picture the pixels show; it may leave the picture, whose border is then
            repeated.
        detection: How sure the detector is that this is a face, 0 to 1; None where the whole
            picture was taken for one.
        landmarks: x and y of what `POINTS` names, in pixels of the upright original; none where
            the whole picture was taken for a face. Left and right are the picture's, of the face
            turned upright.
        roll: By how many degrees the face is turned clockwise in the picture, -180 to 180; None
            likewise.
        turn: By how many degrees the crop was turned counterclockwise around its middle, to stand
            upright; 0 where the face is turned by less than 20.
        quality: How good its pixels are; None likewise.
    """

    box: Box
    pixels: npt.NDArray[np.uint8]
    crop: Box
    detection: float | None = None
    landmarks: tuple[tuple[float, float], ...] = ()
    roll: float | None = None
    turn: float = 0.0
    quality: Quality | None = None


def cut_faces(picture: Picture, spec: InputSpec, found: Faces) -> list[Face]:
    """Cut the faces out of a picture. Any thread may call it.

    Args:
        picture: A decoded picture.
        spec: The faces that the checkpoint was trained on.
        found: Where they are, in pixels of the upright original.

    Returns:
        The faces, in the same order.
    """
    return [_cut(picture, spec, face) for face in found]


def whole_picture(picture: Picture, spec: InputSpec) -> Face:
    """Return the whole picture as a face, squeezed to the input's size as in training."""
    box, pixels = Box(0, 0, picture.width, picture.height), picture.grey
    return Face(box, resized(pixels, spec), box)


def can_show_face(face: Face) -> bool:
    """Return whether a whole picture may be a face: it is not tiny, and not of one tone.

    Of 7,178 test faces of FER2013 one has a range of grey levels below 50: a blank one.
    """
    tones = int(face.pixels.max()) - int(face.pixels.min())
    return min(face.box.width, face.box.height) >= _LEAST_SIDE and tones >= _LEAST_TONES


def _cut(picture: Picture, spec: InputSpec, found: Faces) -> Face:
    left, top, right, bottom = map(float, found[:4])
    roll = float(rolls(found[None])[0])
    side = _upright_side(right - left, bottom - top, roll)
    turn = roll if abs(roll) >= _TURNED_FROM else 0.0
    crop = _square((left + right) / 2, (top + bottom) / 2, side)
    cut = _turned_cut_out(picture, crop, turn) if turn else _cut_out(picture, crop)
    pixels = resized(np.asarray(cut), spec)
    points = found[CONFIDENCE + 1 :].reshape(len(POINTS), 2)
    return Face(
        _clipped(found, picture),
        pixels,
        crop,
        float(found[CONFIDENCE]),
        tuple((round(float(x), 1), round(float(y), 1)) for x, y in points),
        round(math.degrees(roll), 1),
        math.degrees(turn),
        judge(pixels, side),
    )


def _upright_side(width: float, height: float, roll: float) -> float:
    """Return the longer side that the box of a turned face has when it is turned upright.

    A face is about an ellipse, and its box that of the turned ellipse.
    """
    cos, sin = math.cos(roll) ** 2, math.sin(roll) ** 2
    return max(width, height) / math.sqrt(max(cos + _ASPECT**2 * sin, sin + _ASPECT**2 * cos))


def _square(x: float, y: float, side: float) -> Box:
    whole = max(1, round(side))
    return Box(round(x - side / 2), round(y - side / 2), whole, whole)


def _turned_cut_out(picture: Picture, crop: Box, turn: float) -> Image.Image:
    """Return the crop turned around its middle, counterclockwise by `turn` radians."""
    around = _square(crop.x + crop.width / 2, crop.y + crop.height / 2, crop.width * math.sqrt(2))
    upright = _cut_out(picture, around).rotate(math.degrees(turn), Image.Resampling.BILINEAR)
    inner = upright.width / math.sqrt(2)
    edge = round((upright.width - inner) / 2)
    return upright.crop((edge, edge, upright.width - edge, upright.width - edge))


def _cut_out(picture: Picture, crop: Box) -> Image.Image:
    """Return the crop at the size that the picture was decoded to, its border repeated."""
    rows, columns = picture.grey.shape
    scale = columns / picture.width  # of a large JPEG, less than the original was decoded
    left, top = round(crop.x * scale), round(crop.y * scale)
    side = max(1, round(crop.width * scale))
    # Indices beyond the border are the border's: a copy of the crop alone, however it lies.
    across = np.clip(np.arange(left, left + side), 0, columns - 1)
    down = np.clip(np.arange(top, top + side), 0, rows - 1)
    return Image.fromarray(picture.grey[np.ix_(down, across)])


def _clipped(found: Faces, picture: Picture) -> Box:
    left, right = (min(max(round(float(v)), 0), picture.width) for v in found[[0, 2]])
    top, bottom = (min(max(round(float(v)), 0), picture.height) for v in found[[1, 3]])
    left, top = min(left, picture.width - 1), min(top, picture.height - 1)
    return Box(left, top, max(1, right - left), max(1, bottom - top))
