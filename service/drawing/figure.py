"""One figure of all faces, a row each: crop, straightened, attention, evidence, probabilities.

Not its duty: the whole picture (`service.drawing.overlay`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from service.drawing.colours import INFERNO, VIRIDIS, Table
from service.drawing.frames import View, describe, outline
from service.drawing.overlay import Font
from service.drawing.paint import Subject, paint_attention, paint_evidence, share, show
from service.pictures.decode import Picture
from service.pictures.faces import Box

TILE = 224
"""Long side of each picture of a face, in pixels."""

_MARGIN, _GAP, _HEAD, _CAPTION, _BARS = 32, 20, 92, 40, 330
_PAPER, _INK, _SOFT, _TRACK = (252, 252, 250), (28, 28, 34), (96, 96, 104), (232, 232, 230)
_MOST_BARS = 10
_WIDTH = 2 * _MARGIN + 4 * (TILE + _GAP) + _BARS


@dataclass(frozen=True)
class Tiles:
    """One face in four pictures, in mode RGB, the long side of each `TILE`.

    Attributes:
        crop: What the network was given, the part that it went on with framed.
        straightened: What it went on with.
        attention: The crop under the attention.
        evidence: The crop under what spoke for the emotion.
    """

    crop: Image.Image
    straightened: Image.Image
    attention: Image.Image
    evidence: Image.Image


def draw_tiles(picture: Picture, subject: Subject) -> Tiles:
    """Draw one face; in a thread of the pool."""
    view = _view(subject.crop)
    grey = show(picture, view)
    crop = grey.convert("RGB")
    _draw_outline(crop, outline(subject.explanation.theta, subject.crop, view))
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
        picture: It may be smaller than the original.
        subjects: Its faces; without any the figure says so.
        title: What stands above, e.g. the model's name.

    Returns:
        In mode RGB, 1370 pixels wide; 284 high for each face, and 92 more.
    """
    rows = max(1, len(subjects))
    height = _HEAD + rows * (TILE + _CAPTION + _GAP)
    figure = Image.new("RGB", (_WIDTH, height), _PAPER)
    pen = _Pen(figure)
    pen.head(title)
    if not subjects:
        pen.words((_MARGIN, _HEAD), "No face was found in this picture.", pen.large, _SOFT)
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

    def words(
        self,
        place: tuple[float, float],
        words: str,
        font: Font,
        colour: tuple[int, int, int] = _INK,
        anchor: str = "ls",
    ) -> None:
        self._draw.text(place, words, fill=colour, font=font, anchor=anchor)

    def head(self, title: str) -> None:
        self.words((_MARGIN, 38), title, self.large)
        names = ("Crop", "Straightened", "Attention", "Evidence", "Probabilities")
        for column, name in enumerate(names):
            self.words((_left(column), _HEAD - 14), name, self._medium)
        self._scale(_left(2), VIRIDIS, "shut", "open")
        self._scale(_left(3), INFERNO, "none", "most")

    def row(self, top: int, subject: Subject, tiles: Tiles) -> None:
        pictures = (tiles.crop, tiles.straightened, tiles.attention, tiles.evidence)
        for column, picture in enumerate(pictures):
            x, y = _left(column), top
            place = x + (TILE - picture.width) // 2, y + (TILE - picture.height) // 2
            self._figure.paste(picture, place)
            self.words((x, y + TILE + 22), _caption(column, subject), self._small, _SOFT)
        self._bars(_left(4), top, subject)

    def _scale(self, left: int, table: Table, low: str, high: str) -> None:
        """Show a map's colours, right-aligned above its column."""
        strip = Image.fromarray(table[None, ::4]).resize((64, 10))
        right, baseline = left + TILE, _HEAD - 14
        width = round(self._small.getlength(high))
        self.words((right, baseline), high, self._small, _SOFT, "rs")
        self._figure.paste(strip, (right - width - 72, baseline - 10))
        self.words((right - width - 80, baseline), low, self._small, _SOFT, "rs")

    def _bars(self, left: int, top: int, subject: Subject) -> None:
        shown = sorted(subject.probabilities.values(), reverse=True)[:_MOST_BARS]
        kept = [(e, p) for e, p in subject.probabilities.items() if p >= shown[-1]][:_MOST_BARS]
        step = TILE / len(kept)
        for place, (emotion, probability) in enumerate(kept):
            middle = top + (place + 0.5) * step
            first = emotion == subject.emotion
            ink = _INK if first else _SOFT
            self.words((left + 92, middle), emotion[:12], self._medium, ink, "rm")
            self._bar(left + 104, middle, probability, first)
            self.words((left + _BARS, middle), share(probability), self._medium, ink, "rm")

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
    """Draw a smooth outline, white beside black: at four times the size, then made smaller."""
    width, height = image.size
    large = [(4 * x, 4 * y) for x, y in corners]
    for line, colour in ((14, (16, 16, 20)), (7, (255, 255, 255))):
        mask = Image.new("L", (4 * width, 4 * height))
        ImageDraw.Draw(mask).line([*large, large[0], large[1]], fill=255, width=line, joint="curve")
        image.paste(colour, mask=mask.reduce(4))
