"""The whole picture with the evidence over its faces, their boxes and their labels."""

import math
from collections.abc import Sequence
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from service.drawing.frames import View, outline
from service.drawing.paint import Subject, paint_evidence, render_view
from service.pictures.decode import Picture

MAX_SIDE = 1024
"""Largest long side of the drawing, in pixels."""
_MIN_SIDE = 512  # a smaller picture is enlarged, for readable labels

_FOREGROUND, _BACKGROUND = (255, 255, 255), (16, 16, 20)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_overlay(picture: Picture, subjects: Sequence[Subject]) -> Image.Image:
    """Draw the picture and its faces; in a thread of the pool.

    Args:
        picture: The picture, which may be decoded smaller than the original.
        subjects: Its faces, the largest first; may be empty.

    Returns:
        In mode RGB; the long side is the original's, limited to 512 to 1024 pixels.
    """
    whole = _whole(picture)
    grey = render_view(picture, whole)
    canvas = grey.convert("RGB")
    for subject in subjects:
        _paint_evidence_on(canvas, grey, whole, subject)
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(max(14, max(canvas.size) // 56))
    for subject in subjects:
        draw_frame(pen, _corners(subject, whole))
    for subject in subjects:  # after all frames, so that no frame crosses a label
        left, top, *_ = _corners(subject, whole)
        draw_label(pen, (left, top), subject.label, font, canvas.size)
    return canvas


def to_png(image: Image.Image) -> bytes:
    """Encode a drawing as PNG."""
    file = BytesIO()
    # Level 6 takes three times as long and saves a tenth of the bytes.
    image.save(file, "PNG", compress_level=2)
    return file.getvalue()


def draw_frame(pen: ImageDraw.ImageDraw, corners: tuple[int, int, int, int]) -> None:
    """Draw a white rectangle with black borders, visible on light and dark pictures."""
    left, top, right, bottom = corners
    for grow, colour in ((1, _BACKGROUND), (-2, _BACKGROUND), (0, _FOREGROUND), (-1, _FOREGROUND)):
        edges = (left - grow, top - grow, right + grow, bottom + grow)
        if edges[0] < edges[2] and edges[1] < edges[3]:
            pen.rectangle(edges, outline=colour)


def draw_label(
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    text: str,
    font: Font,
    size: tuple[int, int],
) -> None:
    """Draw a label on a dark background above a corner, or below it if there is no space."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    pad = max(3, (bottom - top) // 3)
    width, height = math.ceil(right - left) + 2 * pad, math.ceil(bottom - top) + 2 * pad
    x = max(0, min(corner[0] - 1, size[0] - width))
    y = corner[1] - height if corner[1] >= height else corner[1] + 2
    y = max(0, min(y, size[1] - height))
    pen.rectangle((x, y, x + width - 1, y + height - 1), fill=_BACKGROUND)
    pen.text((x + pad - left, y + pad - top), text, fill=_FOREGROUND, font=font)


def _whole(picture: Picture) -> View:
    longest = max(picture.width, picture.height)
    scale = min(max(longest, _MIN_SIDE), MAX_SIDE) / longest
    columns, rows = (max(1, round(side * scale)) for side in (picture.width, picture.height))
    return View(0.0, 0.0, picture.width, picture.height, columns, rows)


def _paint_evidence_on(
    canvas: Image.Image, grey: Image.Image, whole: View, subject: Subject
) -> None:
    """Draw the evidence on the part of the canvas that the face covers."""
    across, down = zip(*outline(subject.theta, subject.crop, whole), strict=True)
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
