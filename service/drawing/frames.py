"""From a map over a straightened face back to the picture, and the transform in words.

    view's pixel ─▶ place in the picture ─▶ place in the crop ─▶ place in the straightened face

Every step is a 3x3 matrix, so that a map is sampled once. Not its duty: colours.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.pictures.faces import Box

Matrix = npt.NDArray[np.float64]

# A map this small, enlarged at once, would show its cells; bicubic first, then as it lies.
_ENLARGED = 192


@dataclass(frozen=True)
class Straightening:
    """What was done to a face: moved, then turned and enlarged about the crop's middle.

    Attributes:
        angle_deg: How far it was turned clockwise, in degrees.
        scale: How many times it was enlarged; below 1 it was made smaller.
        shift_x: How far it was moved to the right, as a share of the crop's width.
        shift_y: How far it was moved down, as a share of the crop's height.
    """

    angle_deg: float
    scale: float
    shift_x: float
    shift_y: float


@dataclass(frozen=True)
class View:
    """A rectangle of the picture and the pixels that show it.

    Attributes:
        x: Its left edge in the upright original, in pixels; it may lie outside, as may all of it.
        y: Its top edge.
        width: Above 0.
        height: Above 0.
        columns: Pixels across that show it, 1 or more.
        rows: Pixels down.
    """

    x: float
    y: float
    width: float
    height: float
    columns: int
    rows: int


def describe(theta: npt.NDArray[np.float32]) -> Straightening:
    """Say what a transform did, of one that is no similarity what the nearest would do.

    Args:
        theta: float32[2, 3], as `service.engine.explanation.Explanation` has it: it says where
            to read, so what it does to the face is the inverse.
    """
    (a, b, x), (c, d, y) = theta.tolist()
    angle_deg = math.degrees(math.atan2(b - c, a + d))
    scale = 1.0 / max(math.sqrt(abs(a * d - b * c)), 1e-6)
    # A side is 2 long in the transform's coordinates.
    return Straightening(angle_deg, scale, -x / 2.0, -y / 2.0)


def lay(
    values: npt.NDArray[np.float32], theta: npt.NDArray[np.float32], crop: Box, view: View
) -> npt.NDArray[np.float32]:
    """Lay a map of a straightened face over a view of the picture.

    Args:
        values: float32[h, w], whose cells divide the straightened face evenly.
        theta: float32[2, 3], where in the crop the straightened face was read.
        crop: What was cut out of the picture as the face.
        view: Where to lay it.

    Returns:
        float32[rows, columns] of the view; NaN where the straightened face does not reach.
    """
    large = Image.fromarray(values).resize((_ENLARGED, _ENLARGED), Image.Resampling.BICUBIC)
    to_map = _scaling(_ENLARGED / 2.0, _ENLARGED / 2.0) @ _shift(1.0, 1.0)
    way = to_map @ _inverse(_square(theta)) @ _to_crop(crop) @ _to_picture(view)
    laid = large.transform(
        (view.columns, view.rows),
        Image.Transform.AFFINE,
        tuple(way[:2].ravel()),
        Image.Resampling.BILINEAR,
        fillcolor=math.nan,
    )
    return np.asarray(laid)


def outline(theta: npt.NDArray[np.float32], crop: Box, view: View) -> list[tuple[float, float]]:
    """Return the corners of the straightened face in a view's pixels, in order around it."""
    corners = np.array([[-1, 1, 1, -1], [-1, -1, 1, 1], [1, 1, 1, 1]], np.float64)
    way = _inverse(_to_picture(view)) @ _inverse(_to_crop(crop)) @ _square(theta)
    return [(float(x), float(y)) for x, y, _ in (way @ corners).T]


def _to_picture(view: View) -> Matrix:
    return _shift(view.x, view.y) @ _scaling(view.width / view.columns, view.height / view.rows)


def _to_crop(crop: Box) -> Matrix:
    """From the picture's pixels to -1 to 1 from edge to edge of the crop."""
    return (
        _shift(-1.0, -1.0)
        @ _scaling(2.0 / crop.width, 2.0 / crop.height)
        @ _shift(-crop.x, -crop.y)
    )


def _square(theta: npt.NDArray[np.float32]) -> Matrix:
    return np.vstack((theta.astype(np.float64), (0.0, 0.0, 1.0)))


def _inverse(matrix: Matrix) -> Matrix:
    # Of an affine transformer that flattened the face there is no inverse: nothing is laid then.
    return np.asarray(np.linalg.pinv(matrix), np.float64)


def _scaling(x: float, y: float) -> Matrix:
    return np.diag((x, y, 1.0))


def _shift(x: float, y: float) -> Matrix:
    return np.array(((1.0, 0.0, x), (0.0, 1.0, y), (0.0, 0.0, 1.0)))
