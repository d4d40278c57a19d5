"""The rows that a detector returns, and operations on them: overlaps, moves, turns.

Each face is a row of float32[15]: left, top, right, bottom, confidence, and x and y of five points.
"""

import numpy as np
import numpy.typing as npt

Faces = npt.NDArray[np.float32]
"""float32[n, 15]: box in pixels, confidence 0 to 1, five points in pixels; see `POINTS`."""

POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
"""What the points are; left and right as the picture shows an upright face."""

CONFIDENCE, COLUMNS = 4, 15
NO_FACES: Faces = np.empty((0, COLUMNS), np.float32)

_X, _Y = [0, 2, *range(5, COLUMNS, 2)], [1, 3, *range(6, COLUMNS, 2)]

# From this share of itself in a larger face, a box is a part of it: an eye, a mouth.
_PART = 0.6


def overlaps(face: Faces, faces: Faces) -> npt.NDArray[np.float32]:
    """Return the intersection over union of one face, float32[15], with others: float32[n]."""
    both = _shared(face, faces)
    return np.asarray(both / np.maximum(_area(face) + _area(faces) - both, 1e-9), np.float32)


def sides(faces: Faces) -> npt.NDArray[np.float32]:
    """Return the longer side of each box: float32[n]."""
    return np.asarray(np.max(faces[:, 2:4] - faces[:, :2], axis=1), np.float32)


def rolls(faces: Faces) -> npt.NDArray[np.float32]:
    """Return by how much each is turned clockwise, in radians, -pi to pi: float32[n].

    Its eyes say so, and so does the line from them to the mouth, which a profile leaves as it is.
    """
    points = faces[:, CONFIDENCE + 1 :].reshape(-1, len(POINTS), 2)
    across = points[:, 1] - points[:, 0]
    down = (points[:, 3] + points[:, 4] - points[:, 0] - points[:, 1]) / 2
    return np.asarray(np.arctan2(across[:, 1] - down[:, 0], across[:, 0] + down[:, 1]), np.float32)


def most_turned(faces: Faces) -> int:
    """Return by how many quarters, counterclockwise, most of some faces are turned upright."""
    quarters = np.rint(rolls(faces) / (np.pi / 2)).astype(np.int64) % 4
    return int(np.bincount(quarters, minlength=4).argmax())


def most_confident(faces: Faces, overlap: float) -> Faces:
    """Keep of those that overlap the most confident one.

    Args:
        faces: Any number, in any order.
        overlap: Intersection over union from which two are one face, 0 to 1.

    Returns:
        The kept ones, most confident first.
    """
    rest, kept = faces[np.argsort(-faces[:, CONFIDENCE], kind="stable")], []
    while len(rest):
        kept.append(rest[0])
        rest = rest[1:][overlaps(rest[0], rest[1:]) < overlap]
    return np.asarray(kept, np.float32).reshape(-1, COLUMNS)


def without_parts(faces: Faces) -> Faces:
    """Drop each box that lies for the most part in a larger, more confident one.

    Args:
        faces: Most confident first.
    """
    areas, kept = _area(faces), np.ones(len(faces), bool)
    for index, face in enumerate(faces):
        larger = kept[:index] & (areas[:index] > areas[index])
        kept[index] = not np.any(_shared(face, faces[:index][larger]) > _PART * areas[index])
    return faces[kept]


def moved(faces: Faces, scale: float, left: float, top: float) -> Faces:
    """Return faces in another picture's pixels: scaled, then moved by `left` and `top`."""
    result = faces.copy()
    for columns, by in ((_X, left), (_Y, top)):
        result[:, columns] = result[:, columns] * scale + by
    return result


def turned(faces: Faces, quarters: int, size: tuple[int, int]) -> Faces:
    """Return the faces of a picture that was turned, in the pixels of the one that was not.

    Args:
        faces: In the turned picture.
        quarters: How often it was turned by 90 degrees, counterclockwise.
        size: Width and height of the picture before.
    """
    if quarters == 0:
        return faces
    width, height = size
    corners = faces.copy()
    x, y = corners[:, _X].copy(), corners[:, _Y].copy()
    if quarters == 1:
        corners[:, _X], corners[:, _Y] = width - y, x
    elif quarters == 2:
        corners[:, _X], corners[:, _Y] = width - x, height - y
    else:
        corners[:, _X], corners[:, _Y] = y, height - x
    low = np.minimum(corners[:, :2], corners[:, 2:4])
    corners[:, 2:4] = np.maximum(corners[:, :2], corners[:, 2:4])
    corners[:, :2] = low
    return corners


def _shared(face: Faces, faces: Faces) -> npt.NDArray[np.float32]:
    size = np.minimum(face[2:4], faces[:, 2:4]) - np.maximum(face[:2], faces[:, :2])
    return np.asarray(np.prod(np.clip(size, 0, None), axis=1), np.float32)


def _area(faces: Faces) -> npt.NDArray[np.float32]:
    return np.asarray(np.prod(faces[..., 2:4] - faces[..., :2], axis=-1), np.float32)
