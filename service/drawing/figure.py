"""One figure with a row per face: crop, straightened crop, attention, evidence, probabilities."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from service.drawing.colours import INFERNO, VIRIDIS, Table
from service.drawing.frames import View, describe, outline
from service.drawing.overlay import Font
from service.drawing.paint import (
    Subject,
    format_probability,
    paint_attention,
    paint_evidence,
    render_view,
)
from service.pictures.decode import Picture
from service.pictures.faces import Box

TILE = 224
"""Long side of each tile, in pixels."""

_MARGIN, _GAP, _HEAD, _CAPTION, _BARS = 32, 20, 92, 40, 330
_BACKGROUND, _FOREGROUND, _SECONDARY, _TRACK = (
    (252, 252, 250),
    (28, 28, 34),
    (96, 96, 104),
    (232, 232, 230),
)
_MOST_BARS = 10
_WIDTH = 2 * _MARGIN + 4 * (TILE + _GAP) + _BARS


@dataclass(frozen=True)
class Tiles:
    """Four pictures of one face, in mode RGB, the long side of each `TILE`.

    Attributes:
        crop: The network's input, with the outline of the straightened part.
        straightened: The crop after the spatial transformer.
        attention: The crop with the attention map.
        evidence: The crop with the evidence for the emotion.
    """

    crop: Image.Image
    straightened: Image.Image
    attention: Image.Image
    evidence: Image.Image


def draw_tiles(picture: Picture, subject: Subject) -> Tiles:
    """Draw one face; in a thread of the pool."""
    view = _view(subject.crop)
    grey = render_view(picture, view)
    crop = grey.convert("RGB")
    _draw_outline(crop, outline(subject.theta, subject.crop, view))
    straightened = Image.fromarray(subject.explanation.straightened)
    return Tiles(
        crop,
        straightened.resize(grey.size, Image.Resampling.BICUBIC).convert("RGB"),
        paint_attention(grey, subject, view),
        paint_evidence(grey, subject, view),
    )


def draw_figure(picture: Picture, subjects: Sequence[Subject], title: str) -> Image.Image:
    """Draw all faces; in a thread of the pool.

    Args:
        picture: The picture, which may be decoded smaller than the original.
        subjects: Its faces; without any, the figure says so.
        title: The heading, e.g. the model's name.

    Returns:
        In mode RGB, 1370 pixels wide; 92 high, and 284 more for each face.
    """
    rows = max(1, len(subjects))
    height = _HEAD + rows * (TILE + _CAPTION + _GAP)
    figure = Image.new("RGB", (_WIDTH, height), _BACKGROUND)
    pen = _Pen(figure)
    pen.head(title)
    if not subjects:
        pen.draw_text((_MARGIN, _HEAD), "No face was found in this picture.", pen.large, _SECONDARY)
    for row, subject in enumerate(subjects):
        pen.row(_HEAD + row * (TILE + _CAPTION + _GAP), subject, draw_tiles(picture, subject))
    return figure


class _Pen:
    """Draws the parts of a figure."""

    def __init__(self, figure: Image.Image) -> None:
        self._figure = figure
        self._draw = ImageDraw.Draw(figure)
        self._small: Font = ImageFont.load_default(14)
        self._medium: Font = ImageFont.load_default(16)
        self.large: Font = ImageFont.load_default(20)

    def draw_text(
        self,
        place: tuple[float, float],
        text: str,
        font: Font,
        colour: tuple[int, int, int] = _FOREGROUND,
        anchor: str = "ls",
    ) -> None:
        self._draw.text(place, text, fill=colour, font=font, anchor=anchor)

    def head(self, title: str) -> None:
        self.draw_text((_MARGIN, 38), title, self.large)
        names = ("Crop", "Straightened", "Attention", "Evidence", "Probabilities")
        for column, name in enumerate(names):
            self.draw_text((_left(column), _HEAD - 14), name, self._medium)
        self._scale(_left(2), VIRIDIS, "shut", "open")
        self._scale(_left(3), INFERNO, "none", "most")

    def row(self, top: int, subject: Subject, tiles: Tiles) -> None:
        pictures = (tiles.crop, tiles.straightened, tiles.attention, tiles.evidence)
        for column, picture in enumerate(pictures):
            x, y = _left(column), top
            place = x + (TILE - picture.width) // 2, y + (TILE - picture.height) // 2
            self._figure.paste(picture, place)
            self.draw_text((x, y + TILE + 22), _caption(column, subject), self._small, _SECONDARY)
        self._bars(_left(4), top, subject)

    def _scale(self, left: int, table: Table, low: str, high: str) -> None:
        """Draw the scale of a colour map, right-aligned above its column."""
        strip = Image.fromarray(table[None, ::4]).resize((64, 10))
        right, baseline = left + TILE, _HEAD - 14
        width = round(self._small.getlength(high))
        self.draw_text((right, baseline), high, self._small, _SECONDARY, "rs")
        self._figure.paste(strip, (right - width - 72, baseline - 10))
        self.draw_text((right - width - 80, baseline), low, self._small, _SECONDARY, "rs")

    def _bars(self, left: int, top: int, subject: Subject) -> None:
        shown = sorted(subject.probabilities.values(), reverse=True)[:_MOST_BARS]
        kept = [(e, p) for e, p in subject.probabilities.items() if p >= shown[-1]][:_MOST_BARS]
        step = TILE / len(kept)
        for place, (emotion, probability) in enumerate(kept):
            middle = top + (place + 0.5) * step
            first = emotion == subject.emotion
            ink = _FOREGROUND if first else _SECONDARY
            self.draw_text((left + 92, middle), emotion[:12], self._medium, ink, "rm")
            self._bar(left + 104, middle, probability, first)
            self.draw_text(
                (left + _BARS, middle), format_probability(probability), self._medium, ink, "rm"
            )

    def _bar(self, left: int, middle: float, probability: float, first: bool) -> None:
        length, half = _BARS - 104 - 58, 8
        box = (left, round(middle) - half, left + length, round(middle) + half)
        self._draw.rounded_rectangle(box, 4, fill=_TRACK)
        filled = round(length * probability)
        if filled >= 1:
            colour = tuple(VIRIDIS[88].tolist()) if first else (150, 160, 170)
            self._draw.rounded_rectangle((*box[:2], left + filled, box[3]), 4, fill=colour)


def _left(column: int) -> int:
    return _MARGIN + column * (TILE + _GAP)


def _caption(column: int, subject: Subject) -> str:
    if column == 0:
        crop = subject.crop
        return f"{crop.width} x {crop.height} pixels at {crop.x}, {crop.y}"
    if column == 1:
        made = describe(subject.explanation.theta)
        return f"turned {made.angle_deg:+.1f}°, scaled by {made.scale:.2f}"
    if column == 2:
        return "where its features pass on"
    return f"what spoke for {subject.emotion[:16]}"


def _view(crop: Box) -> View:
    longest = max(crop.width, crop.height)
    columns, rows = (max(1, round(TILE * side / longest)) for side in (crop.width, crop.height))
    return View(crop.x, crop.y, crop.width, crop.height, columns, rows)


def _draw_outline(image: Image.Image, corners: list[tuple[float, float]]) -> None:
    """Draw a white outline with a black border, antialiased by drawing at four times the size."""
    width, height = image.size
    large = [(4 * x, 4 * y) for x, y in corners]
    for line, colour in ((14, (16, 16, 20)), (7, (255, 255, 255))):
        mask = Image.new("L", (4 * width, 4 * height))
        ImageDraw.Draw(mask).line([*large, large[0], large[1]], fill=255, width=line, joint="curve")
        image.paste(colour, mask=mask.reduce(4))
