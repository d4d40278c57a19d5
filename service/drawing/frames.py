"""Coordinate frames: maps a straightened face back to the picture, and describes the transform.

    pixel of a view ─▶ point in the picture ─▶ point in the crop ─▶ point in the straightened face

Every step is a 3x3 matrix, so that a map is sampled once.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.pictures.faces import Box

Matrix = npt.NDArray[np.float64]

# Maps have few cells, which would be visible: they are enlarged bicubically first.
_ENLARGED = 192


@dataclass(frozen=True)
class Straightening:
    """The transform of a face: a shift, then a rotation and scaling about the crop's centre.

    Attributes:
        angle_deg: Clockwise rotation, in degrees.
        scale: Factor of enlargement; below 1 the face was reduced.
        shift_x: Shift to the right, as a share of the crop's width.
        shift_y: Shift down, as a share of the crop's height.
    """

    angle_deg: float
    scale: float
    shift_x: float
    shift_y: float


@dataclass(frozen=True)
class View:
    """A rectangle of the picture, and the size in pixels at which it is drawn.

    Attributes:
        x: Left edge in the upright original, in pixels; the view may lie outside the picture.
        y: Top edge.
        width: Above 0.
        height: Above 0.
        columns: Width of the drawing, 1 or more.
        rows: Height of the drawing.
    """

    x: float
    y: float
    width: float
    height: float
    columns: int
    rows: int


def describe(theta: npt.NDArray[np.float32]) -> Straightening:
    """Describe a transform; one that is not a similarity by the nearest similarity.

    Args:
        theta: float32[2, 3], as in `service.engine.explanation.Explanation`. It gives the sampling
            positions, so the face is transformed by its inverse.
    """
    (a, b, x), (c, d, y) = theta.tolist()
    angle_deg = math.degrees(math.atan2(b - c, a + d))
    scale = 1.0 / max(math.sqrt(abs(a * d - b * c)), 1e-6)
    # The transform's coordinates go from -1 to 1.
    return Straightening(angle_deg, scale, -x / 2.0, -y / 2.0)


def project(
    values: npt.NDArray[np.float32], theta: npt.NDArray[np.float32], crop: Box, view: View
) -> npt.NDArray[np.float32]:
    """Project a map of a straightened face onto a view of the picture.

    Args:
        values: float32[h, w], whose cells divide the straightened face evenly.
        theta: float32[2, 3], the sampling positions in the crop.
        crop: The face's crop in the picture.
        view: The target.

    Returns:
        float32[rows, columns] of the view; NaN outside the straightened face.
    """
    large = Image.fromarray(values).resize((_ENLARGED, _ENLARGED), Image.Resampling.BICUBIC)
    to_map = _scaling(_ENLARGED / 2.0, _ENLARGED / 2.0) @ _shift(1.0, 1.0)
    matrix = to_map @ _inverse(_square(theta)) @ _to_crop(crop) @ _to_picture(view)
    projected = large.transform(
        (view.columns, view.rows),
        Image.Transform.AFFINE,
        tuple(matrix[:2].ravel()),
        Image.Resampling.BILINEAR,
        fillcolor=math.nan,
    )
    return np.asarray(projected)


def outline(theta: npt.NDArray[np.float32], crop: Box, view: View) -> list[tuple[float, float]]:
    """Return the corners of the straightened face, in pixels of a view, in order around it."""
    corners = np.array([[-1, 1, 1, -1], [-1, -1, 1, 1], [1, 1, 1, 1]], np.float64)
    matrix = _inverse(_to_picture(view)) @ _inverse(_to_crop(crop)) @ _square(theta)
    return [(float(x), float(y)) for x, y, _ in (matrix @ corners).T]


def _to_picture(view: View) -> Matrix:
    return _shift(view.x, view.y) @ _scaling(view.width / view.columns, view.height / view.rows)


def _to_crop(crop: Box) -> Matrix:
    """Map pixels of the picture to coordinates from -1 to 1 in the crop."""
    return (
        _shift(-1.0, -1.0)
        @ _scaling(2.0 / crop.width, 2.0 / crop.height)
        @ _shift(-crop.x, -crop.y)
    )


def _square(theta: npt.NDArray[np.float32]) -> Matrix:
    return np.vstack((theta.astype(np.float64), (0.0, 0.0, 1.0)))


def _inverse(matrix: Matrix) -> Matrix:
    # A degenerate affine transform has no inverse; the pseudo-inverse then projects nothing.
    return np.asarray(np.linalg.pinv(matrix), np.float64)


def _scaling(x: float, y: float) -> Matrix:
    return np.diag((x, y, 1.0))


def _shift(x: float, y: float) -> Matrix:
    return np.array(((1.0, 0.0, x), (0.0, 1.0, y), (0.0, 0.0, 1.0)))
