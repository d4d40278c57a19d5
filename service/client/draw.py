"""Draws boxes and emotions on copies of pictures."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from service.client.answers import Face, Prediction

_TEXT_COLOUR, _BOX_COLOUR = (255, 255, 255), (20, 60, 120)


def draw(source: Path, prediction: Prediction, target: Path) -> None:
    """Write an annotated copy.

    Args:
        source: The picture that was sent.
        prediction: Its answer.
        target: The copy; its suffix selects the format.

    Raises:
        OSError: One of the files cannot be read or written.
    """
    with Image.open(source) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    canvas = ImageDraw.Draw(picture)
    size = max(12, min(picture.size) // 24)
    for face in prediction.faces:
        _draw_face(canvas, face, size)
    picture.save(target)


def _draw_face(canvas: ImageDraw.ImageDraw, face: Face, size: int) -> None:
    """Draw the box and its label: above the box, or inside it at the picture's top edge."""
    box = face.box
    corners = (box.x, box.y, box.x + box.width - 1, box.y + box.height - 1)
    canvas.rectangle(corners, outline=_BOX_COLOUR, width=max(2, size // 8))
    label, font = f"{face.emotion} {face.confidence:.0%}", ImageFont.load_default(size)
    _, _, right, bottom = canvas.textbbox((0, 0), label, font=font)
    above = box.y - bottom - size // 4
    corner = box.x, above if above >= 0 else box.y
    canvas.rectangle(
        (*corner, corner[0] + right + size // 2, corner[1] + bottom + size // 4), _BOX_COLOUR
    )
    canvas.text((corner[0] + size // 4, corner[1]), label, fill=_TEXT_COLOUR, font=font)
