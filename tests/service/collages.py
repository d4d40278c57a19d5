"""Photographs with faces at known places: scikit-image's portrait pasted on its landscapes."""

from dataclasses import dataclass

import numpy as np
import skimage.data
from PIL import Image

from service.pictures.faces import Box

# Centre and side, in pixels, of the face in the portrait of 512 pixels.
_CENTRE, _SIDE = (225.0, 121.0), 104.0


@dataclass(frozen=True)
class Placed:
    """A face of a collage: centre and side in pixels."""

    x: float
    y: float
    side: float

    def is_in(self, box: Box) -> bool:
        """Whether a box is this face: its centre within a third of a side, its side within half."""
        near = self.side / 3
        centred = (
            abs(box.x + box.width / 2 - self.x) < near
            and abs(box.y + box.height / 2 - self.y) < near
        )
        return centred and 0.5 * self.side < max(box.width, box.height) < 1.5 * self.side


def landscape(width: int, height: int) -> Image.Image:
    """A photograph without a face: a cup of coffee."""
    return Image.fromarray(skimage.data.coffee()).resize((width, height))


def portrait(side: float, angle: float = 0.0) -> Image.Image:
    """Head and shoulders, twice as wide as the face of `side` pixels, turned by `angle` degrees."""
    whole = Image.fromarray(skimage.data.astronaut())
    x, y = _CENTRE
    turned = whole.rotate(angle, Image.Resampling.BICUBIC, center=_CENTRE)
    cut = turned.crop((round(x - _SIDE), round(y - _SIDE), round(x + _SIDE), round(y + _SIDE)))
    return cut.resize((round(2 * side), round(2 * side)), Image.Resampling.LANCZOS)


def collage(*faces: Placed, size: tuple[int, int] = (1024, 768), angle: float = 0.0) -> Image.Image:
    """A landscape with faces pasted at their places, their edges softened."""
    picture = landscape(*size)
    for face in faces:
        pasted = portrait(face.side, angle)
        ramp = np.minimum(np.arange(pasted.width) + 0.5, pasted.width - np.arange(pasted.width))
        soft = np.clip(ramp / (0.08 * pasted.width), 0, 1)
        mask = Image.fromarray((255 * np.outer(soft, soft)).astype(np.uint8))
        picture.paste(pasted, (round(face.x - face.side), round(face.y - face.side)), mask)
    return picture
