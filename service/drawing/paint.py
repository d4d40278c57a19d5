"""Maps in colour over the grey picture, which is what the network sees of it.

Over a coloured one, whose hues they would mix with, the same colour would mean another value at
each place. Not its duty: where a map lies (`service.drawing.frames`), boxes and words.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from service.drawing.colours import INFERNO, VIRIDIS, Table
from service.drawing.frames import View, lay, outline
from service.engine.explanation import Explanation
from service.pictures.decode import Picture
from service.pictures.faces import Box

Pixels = npt.NDArray[np.float32]
"""float32[h, w, 3], 0 to 255."""

# Of the picture under the attention map so much shows as light and shade.
_SHADE = 0.6
# Opacity of the evidence where there is most; where there is none the picture is left alone.
_MOST = 0.9
# Most places have little evidence: below 1 lifts what is between little and most into sight.
_GAMMA = 0.7


@dataclass(frozen=True)
class Subject:
    """A face to be drawn.

    Attributes:
        box: Where it is in the picture.
        crop: What of the picture the network was given.
        probabilities: Of each emotion, 0 to 1.
        explanation: Of the most probable one.
    """

    box: Box
    crop: Box
    probabilities: Mapping[str, float]
    explanation: Explanation

    @property
    def emotion(self) -> str:
        """The most probable one."""
        return max(self.probabilities, key=lambda emotion: self.probabilities[emotion])

    @property
    def label(self) -> str:
        """The emotion and its probability, for people."""
        return f"{self.emotion} {share(self.probabilities[self.emotion])}"


def share(probability: float) -> str:
    """Write a probability for people; 0.01 and 0.99 are not for what is beyond them."""
    if 0.0 < probability < 0.01:
        return "<0.01"
    if 0.99 < probability < 1.0:
        return ">0.99"
    return f"{probability:.2f}"


def show(picture: Picture, view: View) -> Image.Image:
    """Return a view of the picture, in mode L; beyond the picture its border is repeated."""
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
    # Indices beyond the border are the border's, as they are where the network's crop is cut.
    across = (np.arange(view.columns) - place[0]).clip(0, size[0] - 1)
    down = (np.arange(view.rows) - place[1]).clip(0, size[1] - 1)
    return Image.fromarray(inside[np.ix_(down, across)])


def paint_attention(base: Image.Image, subject: Subject, view: View) -> Image.Image:
    """Colour a view by the attention of a face in it.

    Args:
        base: The view in mode L, as `show` gives it.
        subject: The face.
        view: The view.

    Returns:
        In mode RGB; the view as it is where the face is not, or the network has no such attention.
    """
    attention = subject.explanation.attention
    if attention is None:
        return base.convert("RGB")
    values = lay(attention, subject.explanation.theta, subject.crop, view)
    grey = np.asarray(base, np.float32)[..., None]
    shade = np.float32(1 - _SHADE) + np.float32(_SHADE / 255) * grey
    painted = _inside(values, grey, _look_up(VIRIDIS, values) * shade)
    corners = outline(subject.explanation.theta, subject.crop, view)
    return Image.composite(painted, base.convert("RGB"), _smooth_area(corners, base.size))


def paint_evidence(base: Image.Image, subject: Subject, view: View) -> Image.Image:
    """Colour a view by what in it spoke for a face's emotion, relative to what spoke most.

    Args:
        base: The view in mode L, as `show` gives it.
        subject: The face.
        view: The view.

    Returns:
        In mode RGB; the view as it is where the face is not.
    """
    evidence = _smooth(subject.explanation.evidence)
    most = np.float32(evidence.max())
    if most > 0:
        evidence = evidence / most
    values = lay(evidence, subject.explanation.theta, subject.crop, view).clip(0, 1)
    values **= np.float32(_GAMMA)
    grey = np.asarray(base, np.float32)[..., None]
    opacity = np.float32(_MOST) * values[..., None]
    return _inside(values, grey, grey * (1 - opacity) + _look_up(INFERNO, values) * opacity)


def _smooth_area(corners: list[tuple[float, float]], size: tuple[int, int]) -> Image.Image:
    """Return a mask of what lies between corners: drawn at four times the size, then reduced."""
    mask = Image.new("L", (4 * size[0], 4 * size[1]))
    ImageDraw.Draw(mask).polygon([(4 * x, 4 * y) for x, y in corners], fill=255)
    return mask.reduce(4)


def _smooth(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Weigh each place 1-2-1 with its neighbours, down and across: single places look like dust."""
    for _ in range(2):
        padded = np.pad(values, ((1, 1), (0, 0)), mode="edge")
        smooth = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / np.float32(4)
        values = np.ascontiguousarray(smooth.T)
    return values


def _look_up(table: Table, values: npt.NDArray[np.float32]) -> Pixels:
    places = np.nan_to_num(values, nan=0.0).clip(0, 1) * 255 + 0.5
    return table[places.astype(np.uint8)].astype(np.float32)


def _inside(values: npt.NDArray[np.float32], grey: Pixels, painted: Pixels) -> Image.Image:
    pixels = np.where(np.isnan(values)[..., None], grey, painted)
    return Image.fromarray((pixels + 0.5).clip(0, 255).astype(np.uint8))
