"""Draws maps in colour over the grey picture, which is also the network's input.

On a coloured picture the hues would mix, and one colour would stand for different values.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from service.drawing.colours import INFERNO, VIRIDIS, Table
from service.drawing.frames import View, outline, project
from service.engine.explanation import Explanation
from service.pictures.decode import Picture
from service.pictures.faces import Box

Pixels = npt.NDArray[np.float32]
"""float32[h, w, 3], 0 to 255."""

# Share of the picture's brightness that remains visible under the attention map.
_SHADE = 0.6
# Opacity of the highest evidence; without evidence the picture is unchanged.
_MOST = 0.9
# Most cells have little evidence: an exponent below 1 makes medium values visible.
_GAMMA = 0.7


@dataclass(frozen=True)
class Subject:
    """A face to draw.

    Attributes:
        box: Its box in the picture.
        crop: The part of the picture that the network received.
        probabilities: Of each emotion, 0 to 1.
        explanation: Of the most probable emotion.
        turn: The degrees by which the face is turned clockwise in the picture: its crop was turned
            upright before the network received it.
    """

    box: Box
    crop: Box
    probabilities: Mapping[str, float]
    explanation: Explanation
    turn: float = 0.0

    @property
    def theta(self) -> npt.NDArray[np.float32]:
        """float32[2, 3], the sampling positions in the crop as it lies in the picture."""
        angle = math.radians(self.turn)
        cos, sin = math.cos(angle), math.sin(angle)
        turned: npt.NDArray[np.float32] = (
            np.array([[cos, -sin], [sin, cos]], np.float32) @ self.explanation.theta
        )
        return turned

    @property
    def emotion(self) -> str:
        """The most probable emotion."""
        return max(self.probabilities, key=lambda emotion: self.probabilities[emotion])

    @property
    def label(self) -> str:
        """The emotion and its probability, as text."""
        return f"{self.emotion} {format_probability(self.probabilities[self.emotion])}"


def format_probability(probability: float) -> str:
    """Format a probability; values near 0 and 1 become "<0.01" and ">0.99"."""
    if 0.0 < probability < 0.01:
        return "<0.01"
    if 0.99 < probability < 1.0:
        return ">0.99"
    return f"{probability:.2f}"


def render_view(picture: Picture, view: View) -> Image.Image:
    """Return a view of the picture, in mode L; outside the picture its border is repeated."""
    left, right = max(view.x, 0.0), min(view.x + view.width, picture.width)
    top, bottom = max(view.y, 0.0), min(view.y + view.height, picture.height)
    scale_x, scale_y = view.columns / view.width, view.rows / view.height
    place = round((left - view.x) * scale_x), round((top - view.y) * scale_y)
    size = round((right - left) * scale_x), round((bottom - top) * scale_y)
    if min(size) < 1:
        return Image.new("L", (view.columns, view.rows))
    grey = Image.fromarray(picture.grey)
    x, y = grey.width / picture.width, grey.height / picture.height
    box = (left * x, top * y, right * x, bottom * y)
    inside = np.asarray(grey.resize(size, Image.Resampling.BICUBIC, box, reducing_gap=2.0))
    # Clipping the indices repeats the border, as for the network's crop.
    across = (np.arange(view.columns) - place[0]).clip(0, size[0] - 1)
    down = (np.arange(view.rows) - place[1]).clip(0, size[1] - 1)
    return Image.fromarray(inside[np.ix_(down, across)])


def paint_attention(base: Image.Image, subject: Subject, view: View) -> Image.Image:
    """Draw the attention map of a face over a view.

    Args:
        base: The view in mode L, from `render_view`.
        subject: The face.
        view: The view.

    Returns:
        In mode RGB; unchanged outside the face, or if the network has no spatial attention.
    """
    attention = subject.explanation.attention
    if attention is None:
        return base.convert("RGB")
    values = project(attention, subject.theta, subject.crop, view)
    grey = np.asarray(base, np.float32)[..., None]
    shade = np.float32(1 - _SHADE) + np.float32(_SHADE / 255) * grey
    painted = _blend(values, grey, _apply_colours(VIRIDIS, values) * shade)
    corners = outline(subject.theta, subject.crop, view)
    return Image.composite(painted, base.convert("RGB"), _polygon_mask(corners, base.size))


def paint_evidence(base: Image.Image, subject: Subject, view: View) -> Image.Image:
    """Draw the evidence for a face's emotion over a view, relative to its maximum.

    Args:
        base: The view in mode L, from `render_view`.
        subject: The face.
        view: The view.

    Returns:
        In mode RGB; unchanged outside the face.
    """
    evidence = _smooth(subject.explanation.evidence)
    most = np.float32(evidence.max())
    if most > 0:
        evidence = evidence / most
    values = project(evidence, subject.theta, subject.crop, view).clip(0, 1)
    values **= np.float32(_GAMMA)
    grey = np.asarray(base, np.float32)[..., None]
    opacity = np.float32(_MOST) * values[..., None]
    return _blend(values, grey, grey * (1 - opacity) + _apply_colours(INFERNO, values) * opacity)


def _polygon_mask(corners: list[tuple[float, float]], size: tuple[int, int]) -> Image.Image:
    """Return an antialiased mask of a polygon, drawn at four times the size and reduced."""
    mask = Image.new("L", (4 * size[0], 4 * size[1]))
    ImageDraw.Draw(mask).polygon([(4 * x, 4 * y) for x, y in corners], fill=255)
    return mask.reduce(4)


def _smooth(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Smooth with weights 1-2-1 in both directions, since single cells look like noise."""
    for _ in range(2):
        padded = np.pad(values, ((1, 1), (0, 0)), mode="edge")
        smooth = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / np.float32(4)
        values = np.ascontiguousarray(smooth.T)
    return values


def _apply_colours(table: Table, values: npt.NDArray[np.float32]) -> Pixels:
    places = np.nan_to_num(values, nan=0.0).clip(0, 1) * 255 + 0.5
    return table[places.astype(np.uint8)].astype(np.float32)


def _blend(values: npt.NDArray[np.float32], grey: Pixels, painted: Pixels) -> Image.Image:
    pixels = np.where(np.isnan(values)[..., None], grey, painted)
    return Image.fromarray((pixels + 0.5).clip(0, 255).astype(np.uint8))
