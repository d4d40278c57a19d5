"""Draws boxes and emotions on copies of pictures, as the service saw them."""

import io

from PIL import ImageDraw, ImageFont

from service.client.answers import Face, Prediction
from service.client.picture import read_picture

_TEXT_COLOUR, _BOX_COLOUR = (255, 255, 255), (20, 60, 120)


def draw(content: bytes, prediction: Prediction) -> bytes:
    """Return an annotated copy of a picture, the bytes of a PNG. Any thread may call it.

    Args:
        content: The bytes that were sent.
        prediction: Their answer.

    Raises:
        ValueError: Pillow cannot read the picture on this computer.
    """
    picture = read_picture(content)
    canvas = ImageDraw.Draw(picture)
    size = max(12, min(picture.size) // 24)
    for face in prediction.faces:
        _draw_face(canvas, face, size)
    copy = io.BytesIO()
    picture.save(copy, "PNG")
    return copy.getvalue()


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
