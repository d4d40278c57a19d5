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
    """Return a PNG of one grey level."""
    return encoded(Image.new("L", (size, size), level), "PNG")
