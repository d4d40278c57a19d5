"""Pictures for tests, made on the spot: none of them is anybody's."""

from io import BytesIO

import numpy as np
from PIL import Image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the bytes of a picture file of the format `kind`."""
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def ramp(width: int = 96, height: int = 64) -> Image.Image:
    """Return a grey picture that no rotation or flip leaves as it is."""
    rows, columns = np.mgrid[0:height, 0:width]
    return Image.fromarray((columns * 180 // width + rows * 60 // height).astype(np.uint8))


def flat(level: int, size: int = 64) -> bytes:
    """Return a PNG of about one grey level; its halves differ, or it would be no face."""
    dark = min(max(0, level - 12), 231)
    picture = Image.new("L", (size, size), dark)
    picture.paste(dark + 24, (size // 2, 0, size, size))
    return encoded(picture, "PNG")
