"""One picture file, to a grey face.

The service does the same to the pictures that it is sent, hardened against strangers and within
bounds (`service.pictures.decode`); tests hold the two together. Not its duty: where pictures lie,
or labels.
"""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from training.model.manifest import InputSpec
from training.samples import DataError

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
            return resize(np.asarray(to_grey(image)), spec), content
    except _DECODER_ERRORS as error:
        raise DataError(f"{path}: not a whole picture of a format that Pillow reads") from error


def resize(grey: npt.NDArray[np.uint8], spec: InputSpec) -> npt.NDArray[np.uint8]:
    """Bring a grey picture, uint8[h, w], to the size of a face, uint8[height, width]."""
    resample = Image.Resampling[spec.resample.upper()]
    return np.asarray(Image.fromarray(grey).resize((spec.width, spec.height), resample))


def to_grey(image: Image.Image) -> Image.Image:
    """Return a picture upright, in mode L, at full size; what is transparent becomes white."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        return _from_16_bits(upright)
    if upright.mode in ("I", "F"):
        return _stretched(upright)
    if upright.has_transparency_data:
        return _on_white(upright)
    if upright.mode == "LAB":
        return upright.getchannel("L")
    return upright.convert("L")


def _from_16_bits(image: Image.Image) -> Image.Image:
    # Pillow's own conversion turns all above 255 to white.
    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _stretched(image: Image.Image) -> Image.Image:
    """Map 32-bit numbers, which have no agreed white, from their own range to 0-255."""
    values = np.asarray(image, dtype=np.float32)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(high - low):
        raise ValueError("values that are not finite")
    scale = 255.0 / (high - low) if high > low else 0.0
    return Image.fromarray(((values - low) * scale + 0.5).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    # Mode La has no way to RGBA of its own.
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    page = Image.new("L", rgba.size, 255)
    page.paste(rgba.convert("L"), mask=rgba.getchannel("A"))
    return page
