"""From the bytes of a picture to a bounded, upright, grey image.

Whatever a decoder raises on hostile bytes becomes one of the service's own errors; nothing of
Pillow's words leaves this module. Not its duty: finding faces, resizing to them, threads.
"""

import logging
import struct
import warnings
import zlib
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import (  # importing a plugin is what makes Pillow know its format
    BmpImagePlugin,  # noqa: F401
    ExifTags,
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from service.errors import BadImage, NoImage, ServiceError, TooManyPixels, UnsupportedType
from service.pictures.libtiff import silence_libtiff
from service.pictures.plain_jpeg import PlainJpeg, read_plain, recognise_plain
from service.pictures.search import NO_SEARCH, FaceSearch
from service.pictures.tones import as_grey, shrunk_colour
from training.model.manifest import InputSpec

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
READABLE = "JPEG, PNG, WebP, BMP, GIF or TIFF"

# The resizing filter's table grows with the longest side, whatever the other one is.
MAX_SIDE = 65_535
# A JPEG this many times larger than the face, or more, is decoded to its luma alone, and at a half,
# a quarter or an eighth of its size as long as that leaves this much. The face was measured to
# change by less than half a grey level on average and by three at most.
DETAIL = 4
# Real progressive files have about ten scans; each one costs a pass over every pixel.
FREE_SCANS = 20
# Pillow decodes run-length coded BMP in Python, holding the interpreter's lock all the while.
MAX_RUN_LENGTH_BYTES = 1 << 19

# All that Pillow's plugins were seen to raise, and their kin; `Warning` where a host made
# warnings errors. `Exception` would also hide our own mistakes.
_DECODER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = (5, 6, 7, 8)

# Offset, bytes and name of kinds that people send and that are refused by name.
_UNREADABLE = (
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypavif", "AVIF"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML"),
)


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        grey: uint8[h, w], 0-255, upright; of a large JPEG, a smaller copy of the picture.
        width: Columns of the upright original, in pixels.
        height: Rows of the upright original, in pixels.
        colour: A small upright RGB copy to look for faces in; None where none are looked for.
    """

    grey: npt.NDArray[np.uint8]
    width: int
    height: int
    colour: Image.Image | None = None


def prepare_pillow(max_pixels: int) -> None:
    """Set Pillow up for bytes from strangers; once, at start, before any `decode`.

    Pillow keeps these in globals of the process, so they cannot be arguments of `decode`.

    Args:
        max_pixels: What `decode` will be given; beyond twice that Pillow itself refuses, in places
            that know a size before `decode` does.
    """
    Image.MAX_IMAGE_PIXELS = max_pixels
    # Its warnings quote the picture's metadata, and its logger does so at every level.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    silence_libtiff()


def decode(
    data: bytes | bytearray | memoryview,
    spec: InputSpec,
    max_pixels: int,
    search: FaceSearch = NO_SEARCH,
) -> Picture:
    """Read a picture. Any thread may call it; it releases the interpreter's lock for most of it.

    EXIF orientation is obeyed. What is transparent is shown on white, the page that cut-outs are
    made for: the colour stored behind transparency is arbitrary, and mostly black.

    Args:
        data: The picture's bytes: JPEG, PNG, WebP, BMP, GIF or TIFF; of several frames the first.
        spec: The face that the picture will become, so that no more detail is decoded than that.
        max_pixels: Most pixels to decode.
        search: Whether faces will be looked for, which takes more detail, and colour.

    Returns:
        The grey picture, the size of the original, and what to look for faces in.

    Raises:
        NoImage: There are no bytes.
        UnsupportedType: A picture or document of another kind.
        TooManyPixels: Larger than `max_pixels`; nothing was decoded.
        BadImage: Not a picture, or a broken one.
    """
    if not data:
        raise NoImage("The image is empty; send the bytes of a picture.")
    if isinstance(data, bytes | bytearray) and (plain := recognise_plain(data)):
        _refuse_size(plain.width, plain.height, max_pixels)
        if picture := _read_plain(data, plain, spec, search):
            return picture
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            _refuse_large(image, max_pixels)
            _refuse_slow(image, data, max_pixels)
            return _read(image, spec, search)
    except ServiceError:
        raise
    except UnidentifiedImageError:
        raise _unidentified(bytes(data[:16])) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(max_pixels) from None
    except _DECODER_ERRORS as error:
        raise BadImage(
            "The image is damaged or incomplete; check that it opens in a viewer."
        ) from error


def _refuse_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _too_many_pixels(max_pixels)
    if max(width, height) > MAX_SIDE:
        raise TooManyPixels(f"The image has a side above {MAX_SIDE} pixels; send a smaller one.")


def _refuse_large(image: Image.Image, max_pixels: int) -> None:
    _refuse_size(*image.size, max_pixels)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        # A tile may be declared far larger than the picture, and is decoded whole.
        tile = [int(image.tag_v2.get(tag, 1)) for tag in (322, 323)]
        if tile[0] * tile[1] > max_pixels:
            raise _too_many_pixels(max_pixels)


def _refuse_slow(image: Image.Image, data: bytes | bytearray | memoryview, max_pixels: int) -> None:
    """Refuse what is small in bytes and pixels and yet keeps a decoder busy."""
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.info.get("progressive"):
        scans = bytes(data).count(b"\xff\xda")
        if scans > FREE_SCANS and scans * image.width * image.height > FREE_SCANS * max_pixels:
            raise BadImage("The image has too many progressive scans; save it anew.")
    run_length = any(tile[0] == "bmp_rle" for tile in getattr(image, "tile", ()))
    if run_length and len(data) > MAX_RUN_LENGTH_BYTES:
        raise UnsupportedType(
            f"Run-length coded BMP is read up to {MAX_RUN_LENGTH_BYTES} bytes; save it as PNG."
        )


def _read(image: Image.Image, spec: InputSpec, search: FaceSearch) -> Picture:
    width, height = image.size
    looks = search.looks_in(width, height)
    mode, size = _reduced(width, height, spec, search)
    if mode is not None:
        image.draft(mode, size)  # of a JPEG; other formats are whole
    image.load()
    # Only now: Pillow turns a TIFF itself as it loads it, and forgets its orientation then.
    orientation = _orientation(image)
    if orientation in _ON_ITS_SIDE:
        width, height = height, width
    colour = shrunk_colour(image) if looks else None
    grey = as_grey(image)
    if orientation in _TRANSPOSE:
        grey = grey.transpose(_TRANSPOSE[orientation])
        colour = colour and colour.transpose(_TRANSPOSE[orientation])
    return Picture(np.asarray(grey), width, height, colour)


def _read_plain(
    data: bytes | bytearray, plain: PlainJpeg, spec: InputSpec, search: FaceSearch
) -> Picture | None:
    """Do as `_read` does with the same file, sooner; None where it is damaged."""
    looks = search.looks_in(plain.width, plain.height)
    mode, size = _reduced(plain.width, plain.height, spec, search)
    pixels = read_plain(data, "L" if plain.grey else mode or "RGB", *size)
    if pixels is None:
        return None
    if pixels.ndim == 2 and not looks:
        return Picture(pixels, plain.width, plain.height)
    image = Image.fromarray(pixels)
    colour = shrunk_colour(image) if looks else None
    return Picture(np.asarray(as_grey(image)), plain.width, plain.height, colour)


def _reduced(
    width: int, height: int, spec: InputSpec, search: FaceSearch
) -> tuple[str | None, tuple[int, int]]:
    """Return mode and size that a JPEG is decoded to; as the mode None where it is as it is."""
    if search.looks_in(width, height):
        mode, needed, side = "RGB", search.detail, max(width, height)
    else:
        mode, needed, side = "L", DETAIL * max(spec.width, spec.height), min(width, height)
    for scale in (8, 4, 2, 1):
        # One that does not divide both sides would stretch the picture by part of a pixel.
        if width % scale == height % scale == 0 and side >= needed * scale:
            return mode, (width // scale, height // scale)
    return None, (width, height)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DECODER_ERRORS:
        return 1  # broken metadata beside a sound picture: every viewer shows it as it lies


def _too_many_pixels(max_pixels: int) -> TooManyPixels:
    return TooManyPixels(f"The image has more than {max_pixels} pixels; send a smaller one.")


def _unidentified(head: bytes) -> ServiceError:
    for offset, magic, name in _UNREADABLE:
        if head.startswith(magic, offset):
            return UnsupportedType(f"{name} is not read; send {READABLE}.")
    return BadImage(f"These bytes are not a picture that is read here; send {READABLE}.")
