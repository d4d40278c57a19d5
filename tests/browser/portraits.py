"""Pictures that the tests make: of scikit-image's public-domain portrait, and without a face."""

import functools
import io

import numpy as np
from PIL import Image
from skimage import data

# Where the face is in the portrait, with its hair and chin.
FACE = (155, 30, 305, 210)


@functools.cache
def portrait() -> Image.Image:
    return Image.fromarray(data.astronaut())


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def one_face() -> bytes:
    return encoded(portrait(), quality=92)


def many_faces(columns: int = 3, rows: int = 2, side: int = 400) -> bytes:
    """A wall of portraits, each a little larger than the one before."""
    wall = Image.new("RGB", (columns * side, rows * side), (96, 110, 128))
    for i in range(columns * rows):
        size = side - 20 * (columns * rows - i)
        at = (i % columns * side + 10, i // columns * side + 10)
        wall.paste(portrait().resize((size, size), Image.Resampling.LANCZOS), at)
    return encoded(wall, quality=90)


def no_face() -> bytes:
    """A soft landscape of noise, too large to be taken for a face already cut out."""
    coarse = np.random.default_rng(0).integers(40, 200, (6, 9, 3), dtype=np.uint8)
    return encoded(Image.fromarray(coarse).resize((900, 600), Image.Resampling.BICUBIC))


def large(width: int = 3000, height: int = 2400) -> bytes:
    return encoded(portrait().resize((width, height)), quality=80)


def turned() -> bytes:
    """The portrait lying on its side, with a note in its EXIF that puts it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = portrait().crop((0, 0, 400, 512))
    return encoded(upright.transpose(Image.Transpose.ROTATE_90), exif=exif)


def camera_film(frames: int = 20) -> bytes:
    """Motion JPEG, 640 by 480: the portrait swaying a little from side to side."""
    still = portrait().crop((0, 0, 512, 384)).resize((640, 480), Image.Resampling.LANCZOS)
    return b"".join(
        encoded(still.rotate(0, translate=(round(8 * np.sin(2 * np.pi * i / frames)), 0)))
        for i in range(frames)
    )
