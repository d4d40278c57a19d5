"""Faces to be drawn, made on the spot."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.drawing.paint import Subject
from service.engine.explanation import Explanation
from service.pictures.decode import Picture
from service.pictures.faces import Box

IDENTITY = np.eye(2, 3, dtype=np.float32)


def similarity(
    angle_deg: float = 0.0, scale: float = 1.0, x: float = 0.0, y: float = 0.0
) -> NDArray[np.float32]:
    """Return a theta that reads at a clockwise angle, a side of `scale`, about (x, y)."""
    cos, sin = (scale * f(math.radians(angle_deg)) for f in (math.cos, math.sin))
    return np.array([[cos, -sin, x], [sin, cos, y]], np.float32)


def spot(row: int, column: int, side: int = 24) -> NDArray[np.float32]:
    """Return a map that is 1 at one place and 0 elsewhere."""
    values = np.zeros((side, side), np.float32)
    values[row, column] = 1.0
    return values


def subject(
    box: Box,
    crop: Box | None = None,
    theta: NDArray[np.float32] = IDENTITY,
    evidence: NDArray[np.float32] | None = None,
    attention: NDArray[np.float32] | None = None,
    turn: float = 0.0,
) -> Subject:
    """Return a happy face whose straightened pixels are a ramp."""
    straightened = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (48, 1))
    found = spot(12, 12) if evidence is None else evidence
    reasons = Explanation(theta, straightened, attention, found)
    return Subject(box, crop or box, {"anger": 0.07, "happiness": 0.93}, reasons, turn)


def picture(width: int, height: int, level: int = 128) -> Picture:
    """Return a picture of one grey level."""
    return Picture(np.asarray(Image.new("L", (width, height), level)), width, height)


def colour_of(image: Image.Image) -> NDArray[np.int64]:
    """Return int64[h, w], how far each pixel is from grey."""
    pixels = np.asarray(image.convert("RGB"), np.int64)
    return np.asarray(pixels.max(axis=2) - pixels.min(axis=2))
