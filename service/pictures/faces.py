"""From a picture to the faces in it: where they are, and the pixels that the network takes.

For now the whole picture is one face. Not its duty: decoding the picture.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from service.pictures.decode import Picture
from training.model.preprocess import InputSpec


@dataclass(frozen=True)
class Box:
    """A rectangle in the upright original, in pixels from its top left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Face:
    """One face.

    Attributes:
        box: Where it is in the picture.
        pixels: uint8[spec.height, spec.width], 0-255, grey.
    """

    box: Box
    pixels: npt.NDArray[np.uint8]


def find_faces(picture: Picture, spec: InputSpec) -> list[Face]:
    """Cut the faces out of a picture. Any thread may call it.

    Args:
        picture: A decoded picture.
        spec: The faces that the checkpoint was trained on.

    Returns:
        One face, the whole picture squeezed to the input's size with the filter that training
        used.
    """
    grey = Image.fromarray(picture.grey)
    if grey.size != (spec.width, spec.height):
        grey = grey.resize((spec.width, spec.height), Image.Resampling[spec.resample.upper()])
    return [Face(Box(0, 0, picture.width, picture.height), np.asarray(grey))]
