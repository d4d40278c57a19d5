"""Reads one picture file as a grey face.

`training.model.grey` makes the grey levels, in the service as well.
"""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.model.grey import resized, upright_grey
from training.model.manifest import InputSpec
from training.samples import DataError

# In pictures that are larger or less square, the service searches for the face
# (service.pictures.search).
CROP_SIDE = 112
NEARLY_SQUARE = 1.25

# The exceptions that Pillow's decoders raise for invalid data.
_DECODER_ERRORS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Image.DecompressionBombError,
    struct.error,
    zlib.error,
)


def read_face(path: Path, spec: InputSpec) -> tuple[npt.NDArray[np.uint8], bytes]:
    """Read a picture of any format, mode and size that Pillow reads.

    Args:
        path: The file.
        spec: The size of the face, and the filter for resizing.

    Returns:
        The face, uint8[height, width], 0-255, and the bytes of the file.

    Raises:
        DataError: The file cannot be opened, is not a picture, or is damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error
    try:
        with Image.open(BytesIO(content)) as image:
            return resized(upright_grey(image), spec), content
    except _DECODER_ERRORS as error:
        raise DataError(f"{path}: not a whole picture of a format that Pillow reads") from error


def is_crop(content: bytes) -> bool:
    """Tell whether the service takes a whole picture for a face, instead of looking for one in it.

    Args:
        content: Of a file that `read_face` has read.
    """
    with Image.open(BytesIO(content)) as image:  # reads the head alone
        small, large = sorted(image.size)
    return small <= CROP_SIDE and large <= NEARLY_SQUARE * small
