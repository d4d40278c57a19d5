"""From a picture to the faces in it: where they are, and the pixels that the network takes.

Not its duty: decoding the picture, or knowing a face when it sees one (`detector`).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.pictures.boxes import Boxes
from service.pictures.decode import Picture
from service.pictures.detector import Detector
from service.pictures.search import FaceSearch
from training.model.manifest import InputSpec

# A training crop is this many times as wide as the detector's box, and its centre this share of
# the box above the box's: measured on PublicTest (docs/decisions/0007).
CROP_SCALE, CROP_RISE = 1.15, 0.10


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
    """

    box: Box
    pixels: npt.NDArray[np.uint8]
    crop: Box
    detection: float | None = None


def find_faces(
    picture: Picture, spec: InputSpec, search: FaceSearch, detector: Detector
) -> list[Face]:
    """Cut the faces out of a picture. Any thread may call it.

    Args:
        picture: A decoded picture.
        spec: The faces that the checkpoint was trained on.
        search: Which faces are wanted; what the picture was decoded for.
        detector: Finds them.

    Returns:
        The faces, the largest first; or one, the whole picture, where none are looked for.
    """
    if picture.colour is None:
        return [whole_picture(picture, spec)]
    found = detector.detect(picture.colour)
    found[:, :4] *= picture.width / picture.colour.width
    sides = np.max(found[:, 2:4] - found[:, :2], axis=1)
    largest = np.argsort(-sides, kind="stable")[: search.max_faces]
    return [_cut(picture, spec, found[index]) for index in largest]


def whole_picture(picture: Picture, spec: InputSpec) -> Face:
    """Return the whole picture as a face, squeezed to the input's size as in training."""
    box, pixels = Box(0, 0, picture.width, picture.height), picture.grey
    if pixels.shape != (spec.height, spec.width):
        pixels = np.asarray(_resized(Image.fromarray(pixels), spec))
    return Face(box, pixels, box)


def _cut(picture: Picture, spec: InputSpec, found: Boxes) -> Face:
    left, top, right, bottom = map(float, found[:4])
    side = CROP_SCALE * max(right - left, bottom - top)
    x = (left + right - side) / 2
    y = (top + bottom - side) / 2 - CROP_RISE * side / CROP_SCALE
    crop = Box(round(x), round(y), max(1, round(side)), max(1, round(side)))
    pixels = np.asarray(_resized(_cut_out(picture, crop), spec))
    return Face(_clipped(found, picture), pixels, crop, float(found[4]))


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


def _clipped(found: Boxes, picture: Picture) -> Box:
    left, right = (min(max(round(float(v)), 0), picture.width) for v in found[[0, 2]])
    top, bottom = (min(max(round(float(v)), 0), picture.height) for v in found[[1, 3]])
    left, top = min(left, picture.width - 1), min(top, picture.height - 1)
    return Box(left, top, max(1, right - left), max(1, bottom - top))


def _resized(grey: Image.Image, spec: InputSpec) -> Image.Image:
    if grey.size == (spec.width, spec.height):
        return grey
    return grey.resize((spec.width, spec.height), Image.Resampling[spec.resample.upper()])
