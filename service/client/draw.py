"""Copies of pictures with the boxes and emotions drawn on them."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from service.client.answers import Prediction

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
    font = ImageFont.load_default(size)
    for face in prediction.faces:
        box = face.box
        corners = (box.x, box.y, box.x + box.width - 1, box.y + box.height - 1)
        canvas.rectangle(corners, outline=_PAPER, width=max(2, size // 8))
        label = f"{face.emotion} {face.confidence:.0%}"
        place = box.x + size // 4, box.y + size // 4
        canvas.rectangle(canvas.textbbox(place, label, font=font), fill=_PAPER)
        canvas.text(place, label, fill=_INK, font=font)
    picture.save(target)
