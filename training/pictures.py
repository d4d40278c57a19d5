"""One picture file, to a grey face.

The grey levels are made by `training.model.grey`, as they are in the service.
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

# Larger, or less square, the service looks for the face in a picture (service.pictures.search).
CROP_SIDE = 112
NEARLY_SQUARE = 1.25

# All that Pillow's decoders raise on bytes that are not theirs.
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
    """Read a picture of any format, mode and size that Pillow knows.

    Args:
        path: The file.
        spec: Size of the face, and the filter that makes the picture this size.

    Returns:
        The face, uint8[height, width], 0-255, and the bytes of the file.

    Raises:
        DataError: The file cannot be opened, is no picture, or is a broken one.
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
