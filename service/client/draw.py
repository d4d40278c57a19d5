"""Copies of pictures with the boxes and emotions drawn on them."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from service.client.answers import Face, Prediction

_INK, _PAPER = (255, 255, 255), (20, 60, 120)


def draw(source: Path, prediction: Prediction, target: Path) -> None:
    """Write an annotated copy.

    Args:
        source: The picture that was sent.
        prediction: Its answer.
        target: Where the copy goes; its name says the format.

    Raises:
        OSError: One of the files cannot be read or written.
    """
    with Image.open(source) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    canvas = ImageDraw.Draw(picture)
    size = max(12, min(picture.size) // 24)
    for face in prediction.faces:
        _mark(canvas, face, size)
    picture.save(target)


def _mark(canvas: ImageDraw.ImageDraw, face: Face, size: int) -> None:
    """Draw the box, and its label above it, or inside where the picture ends."""
    box = face.box
    corners = (box.x, box.y, box.x + box.width - 1, box.y + box.height - 1)
    canvas.rectangle(corners, outline=_PAPER, width=max(2, size // 8))
    label, font = f"{face.emotion} {face.confidence:.0%}", ImageFont.load_default(size)
    _, _, right, bottom = canvas.textbbox((0, 0), label, font=font)
    above = box.y - bottom - size // 4
    place = box.x, above if above >= 0 else box.y
    canvas.rectangle((*place, place[0] + right + size // 2, place[1] + bottom + size // 4), _PAPER)
    canvas.text((place[0] + size // 4, place[1]), label, fill=_INK, font=font)
