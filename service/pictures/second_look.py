"""Looks a second time at what might be a face.

In a look at a whole picture many responses have a confidence of about 0.1. Some are faces and most
are not. Each is cut out, turned upright and enlarged to the size that the network sees best. Then
nearly all faces have a high confidence and nearly all others have none (docs/decisions/0007). The
cut-outs of a picture are laid beside each other, so that one pass of the network sees them all.
"""

import math
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.pictures.boxes import CONFIDENCE, NO_FACES, Faces, most_confident, rolls, sides

_LEVELS = (1,)  # those that see a face of the size it has in a window


class Look(Protocol):
    """One look at a picture; `retinaface.CpuLook` is one."""

    def __call__(
        self, pixels: npt.NDArray[np.uint8], least: float, levels: tuple[int, ...] = ...
    ) -> Faces:
        """Look at uint8[h, w, 3]; what levels see is said there."""


WINDOW = 128
"""Side of a cut-out, in pixels."""
_FACE, _ACROSS = 64, 4  # the face's longer side in it, and cut-outs of a row
_LEAST, _OVERLAP = 0.3, 0.4
# How far from the middle a face may be, as a share of its side, and how large.
_FAR, _SMALL, _LARGE = 0.35, 0.5, 1.7


def look_again(look: Look, picture: Image.Image, faces: Faces) -> Faces:
    """Look at each of some faces again.

    Args:
        look: Looks.
        picture: Of mode RGB; best one in which these faces are 30 to 130 pixels large.
        faces: In pixels of `picture`.

    Returns:
        Those that are seen again, in pixels of `picture`, as the second look saw them.
    """
    if not len(faces):
        return NO_FACES
    turns, scales = rolls(faces), sides(faces) / _FACE
    centres = (faces[:, :2] + faces[:, 2:4]) / 2
    across, down = min(len(faces), _ACROSS), -(-len(faces) // _ACROSS)
    page = Image.new("RGB", (across * WINDOW, down * WINDOW))
    for index, (centre, turn, scale) in enumerate(zip(centres, turns, scales, strict=True)):
        window = _cut_out(picture, centre, float(turn), float(scale))
        page.paste(window, (index % _ACROSS * WINDOW, index // _ACROSS * WINDOW))
    seen = most_confident(look(np.asarray(page), _LEAST, _LEVELS), _OVERLAP)
    again = [_seen_in(seen, index) for index in range(len(faces))]
    back = [
        _placed_back(found, centres[index], float(turns[index]), float(scales[index]))
        for index, found in enumerate(again)
        if len(found)
    ]
    return np.asarray(back, np.float32).reshape(-1, faces.shape[1])


def _cut_out(
    picture: Image.Image, centre: npt.NDArray[np.float32], turn: float, scale: float
) -> Image.Image:
    """Return the window around a face, upright, `scale` pixels of the picture a pixel."""
    cos, sin, middle = math.cos(turn) * scale, math.sin(turn) * scale, WINDOW / 2
    x, y = map(float, centre)
    matrix = (cos, -sin, x - (cos - sin) * middle, sin, cos, y - (sin + cos) * middle)
    size = (WINDOW, WINDOW)
    return picture.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _seen_in(seen: Faces, index: int) -> Faces:
    """Return the face in a window's middle, in pixels from there: float32[15], or empty."""
    corner = np.array([index % _ACROSS, index // _ACROSS], np.float32) * WINDOW + WINDOW / 2
    off = np.abs((seen[:, :2] + seen[:, 2:4]) / 2 - corner).max(axis=1)
    large = sides(seen)
    fits = (off < _FAR * _FACE) & (large > _SMALL * _FACE) & (large < _LARGE * _FACE)
    if not fits.any():
        return NO_FACES.reshape(-1)
    face: Faces = seen[fits][0].copy()
    face[:CONFIDENCE] -= np.tile(corner, 2)
    face[CONFIDENCE + 1 :] -= np.tile(corner, 5)
    return face


def _placed_back(face: Faces, centre: npt.NDArray[np.float32], turn: float, scale: float) -> Faces:
    """Return a window's face in the picture's pixels and axes.

    A face is about an ellipse: turned, the box around it is that of the turned ellipse.
    """
    cos, sin = math.cos(turn), math.sin(turn)
    turned = np.array([[cos, -sin], [sin, cos]], np.float32) * scale
    middle = turned @ ((face[:2] + face[2:4]) / 2) + centre
    half = np.sqrt(turned**2 @ ((face[2:4] - face[:2]) / 2) ** 2)
    points = face[CONFIDENCE + 1 :].reshape(-1, 2) @ turned.T + centre
    return np.concatenate([middle - half, middle + half, face[[CONFIDENCE]], points.reshape(-1)])
