"""The whole picture with the evidence laid over its faces, their boxes and what they are called.

Not its duty: colouring (`service.drawing.paint`), one face in detail (`service.drawing.figure`).
"""

import math
from collections.abc import Sequence
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from service.drawing.frames import View, outline
from service.drawing.paint import Subject, paint_evidence, show
from service.pictures.decode import Picture

MAX_SIDE = 1024
"""The picture's long side is drawn no longer, in pixels."""
_MIN_SIDE = 512  # on a smaller picture there would be no room for words: it is enlarged

_INK, _GROUND = (255, 255, 255), (16, 16, 20)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_overlay(picture: Picture, subjects: Sequence[Subject]) -> Image.Image:
    """Draw the picture and its faces; in a thread of the pool.

    Args:
        picture: It may be smaller than the original.
        subjects: Its faces, the largest first; none leaves the picture as it is.

    Returns:
        In mode RGB, the long side 512 to 1024 pixels: as the original, where that is between.
    """
    whole = _whole(picture)
    grey = show(picture, whole)
    canvas = grey.convert("RGB")
    for subject in subjects:
        _lay_over(canvas, grey, whole, subject)
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(max(14, max(canvas.size) // 56))
    for subject in subjects:
        frame(pen, _corners(subject, whole))
    for subject in subjects:  # after all frames, so that none crosses a word
        left, top, *_ = _corners(subject, whole)
        tag(pen, (left, top), subject.label, font, canvas.size)
    return canvas


def to_png(image: Image.Image) -> bytes:
    """Encode a drawing as PNG."""
    file = BytesIO()
    # Level 6 takes three times as long for a tenth fewer bytes.
    image.save(file, "PNG", compress_level=2)
    return file.getvalue()


def frame(pen: ImageDraw.ImageDraw, corners: tuple[int, int, int, int]) -> None:
    """Draw a rectangle that shows on light and dark alike: white between black."""
    left, top, right, bottom = corners
    for grow, colour in ((1, _GROUND), (-2, _GROUND), (0, _INK), (-1, _INK)):
        edges = (left - grow, top - grow, right + grow, bottom + grow)
        if edges[0] < edges[2] and edges[1] < edges[3]:
            pen.rectangle(edges, outline=colour)


def tag(
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    words: str,
    font: Font,
    size: tuple[int, int],
) -> None:
    """Write on a dark ground above a corner, or below it where there is no room above."""
    left, top, right, bottom = pen.textbbox((0, 0), words, font=font)
    pad = max(3, (bottom - top) // 3)
    width, height = math.ceil(right - left) + 2 * pad, math.ceil(bottom - top) + 2 * pad
    x = max(0, min(corner[0] - 1, size[0] - width))
    y = corner[1] - height if corner[1] >= height else corner[1] + 2
    y = max(0, min(y, size[1] - height))
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=_GROUND)
    pen.text((x + pad - left, y + pad - top), words, fill=_INK, font=font)


def _whole(picture: Picture) -> View:
    longest = max(picture.width, picture.height)
    scale = min(max(longest, _MIN_SIDE), MAX_SIDE) / longest
    columns, rows = (max(1, round(side * scale)) for side in (picture.width, picture.height))
    return View(0.0, 0.0, picture.width, picture.height, columns, rows)


def _lay_over(canvas: Image.Image, grey: Image.Image, whole: View, subject: Subject) -> None:
    """Colour no more of the canvas than the face takes."""
    across, down = zip(*outline(subject.explanation.theta, subject.crop, whole), strict=True)
    left, right = max(0, math.floor(min(across))), min(whole.columns, math.ceil(max(across)))
    top, bottom = max(0, math.floor(min(down))), min(whole.rows, math.ceil(max(down)))
    if left >= right or top >= bottom:
        return
    x, y = whole.width / whole.columns, whole.height / whole.rows
    columns, rows = right - left, bottom - top
    part = View(left * x, top * y, columns * x, rows * y, columns, rows)
    painted = paint_evidence(grey.crop((left, top, right, bottom)), subject, part)
    canvas.paste(painted, (left, top))


def _corners(subject: Subject, whole: View) -> tuple[int, int, int, int]:
    box = subject.box
    x, y = whole.columns / whole.width, whole.rows / whole.height
    right, bottom = round((box.x + box.width) * x) - 1, round((box.y + box.height) * y) - 1
    return round(box.x * x), round(box.y * y), right, bottom
