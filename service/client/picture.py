"""Reads pictures for people as the service reads them: what it saw is what is shown."""

import io
import struct
import zlib
from typing import Any

from PIL import ExifTags, Image, ImageFile, ImageMath

_GREY_LEVELS = 256
_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's decoders raise on pictures that they cannot read.
_DECODER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Image.DecompressionBombError,
    struct.error,
    zlib.error,
)


def prepare_pillow() -> None:
    """Let Pillow read whatever the service has read; once, before any `read_picture`.

    Pillow keeps these in globals of the process. The service has judged size and damage already.
    """
    Image.MAX_IMAGE_PIXELS = None
    ImageFile.LOAD_TRUNCATED_IMAGES = True


def read_picture(content: bytes) -> Image.Image:
    """Read a picture by the service's rules: upright, in RGB, what is transparent on white.

    16-bit values are scaled; 32-bit values, which have no standard white, are stretched from their
    own range.

    Args:
        content: The picture's bytes; of several frames the first is read.

    Raises:
        ValueError: Pillow cannot read it here.
    """
    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.load()  # first: Pillow itself turns a TIFF when it loads it
            picture = turned(_as_rgb(opened), orientation_of(opened))
    except _DECODER_ERRORS as error:
        raise ValueError("Pillow cannot read the picture on this computer") from error
    picture.info = {}  # colour profile and transparency of another mode
    return picture


def orientation_of(picture: Image.Image) -> int:
    """Return a loaded picture's EXIF orientation, 1 to 8; 1 if it is missing or invalid.

    From its EXIF block alone, as browsers and the service do: `getexif` would also read XMP.
    """
    try:
        exif = Image.Exif()
        exif.load(picture.info.get("exif", b""))
        return int(exif.get(ExifTags.Base.Orientation, 1))
    # A valid picture with broken metadata: the service and viewers ignore the orientation then.
    except _DECODER_ERRORS:
        return 1


def turned(picture: Image.Image, orientation: int) -> Image.Image:
    """Apply an EXIF orientation."""
    method = _TRANSPOSED.get(orientation)
    return picture if method is None else picture.transpose(method)


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return _from_16_bits(picture)
    if picture.mode in ("I", "F"):
        return _stretched(picture)
    if picture.has_transparency_data:
        return _on_white(picture)
    if picture.mode == "LAB":  # the service reads its lightness, and Pillow does not convert it
        return picture.getchannel("L").convert("RGB")
    return picture.convert("RGB")


def _from_16_bits(picture: Image.Image) -> Image.Image:
    # Pillow's own conversion clips all values above 255 to white.
    values = picture.convert("I")
    grey = values.point(lambda value: value * (1 / _GREY_LEVELS)).convert("L")
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        behind = ImageMath.lambda_eval(lambda of: (of["v"] == transparent) * 255, v=values)
        grey.paste(255, mask=behind.convert("L"))
    return grey.convert("RGB")


def _stretched(picture: Image.Image) -> Image.Image:
    values = picture.convert("F")
    extrema: Any = values.getextrema()
    low, high = extrema
    scale = (_GREY_LEVELS - 1) / (high - low) if high > low else 0.0
    offset = 0.5 - low * scale  # rounds, where `convert` cuts off
    return values.point(lambda value: value * scale + offset).convert("L").convert("RGB")


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode == "La":  # premultiplied grey, the only mode that cannot become RGBA
        picture = picture.convert("LA")
    rgba = picture.convert("RGBA")
    page = Image.new("RGB", rgba.size, "white")
    page.paste(rgba.convert("RGB"), mask=rgba.getchannel("A"))
    return page
