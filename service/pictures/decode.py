"""From the bytes of a picture to a bounded, upright, grey image.

Whatever a decoder raises on hostile bytes becomes one of the service's own errors; nothing of
Pillow's words leaves this module.
"""

import importlib.util
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import (  # importing a plugin is what makes Pillow know its format
    AvifImagePlugin,
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,
    PngImagePlugin,  # noqa: F401
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
    features,
)

from service.errors import (
    BadImage,
    NoImage,
    OutOfMemory,
    ServiceError,
    TooManyPixels,
    UnsupportedType,
)
from service.pictures.cost import Cost, cost_of, cost_of_jpeg
from service.pictures.jpeg_head import read_jpeg_head
from service.pictures.mending import complete_jpeg, is_cut_jpeg, strip_png
from service.pictures.plain_jpeg import PlainJpeg, read_plain, recognise_plain
from service.pictures.search import FINEST_SIDE, NO_SEARCH, SEARCHED_SIDE, FaceSearch
from service.pictures.tones import shrunk_colour
from training.model.grey import NotFiniteError, grey_levels, orientation_of, turned
from training.model.manifest import InputSpec

_ALWAYS = ("JPEG", "PNG", "WebP", "BMP", "GIF", "TIFF")
FORMATS = (
    *map(str.upper, _ALWAYS),
    *(["AVIF"] if features.check("avif") else []),
    *(["HEIF"] if importlib.util.find_spec("pillow_heif") else []),
)
"""What Pillow may read. Its own builds have AVIF; HEIF (HEIC) is the extra `heif`."""
READABLE = f"{', '.join(_ALWAYS[:-1])} or {_ALWAYS[-1]}"

# The resizing filter's table grows with the longest side, whatever the other one is.
MAX_SIDE = 65_535
# A JPEG this many times larger than the face, or more, is decoded to its luma alone, and at a half,
# a quarter or an eighth of its size as long as that leaves this much. The face was measured to
# change by less than half a grey level on average and by three at most.
DETAIL = 4
# About what the largest pictures take.
_PROBE_BYTES = 256 << 20
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
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
)

_log = logging.getLogger(__name__)

# Offset, bytes and name of kinds that people send and that are refused by name.
_UNREADABLE = (
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (4, b"ftypavif", "AVIF"),
    (0, b"\x00\x00\x00\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x00\x00\x01\x00", "ICO"),
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "XML"),
    (4, b"ftypqt", "QuickTime video"),
    (4, b"ftyp", "MP4 video"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM video"),
    (8, b"AVI ", "AVI video"),
)

_FORMAT_OF = {"HEIC": "HEIF", "HEIF": "HEIF", "AVIF": "AVIF"}

Data = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        grey: uint8[h, w], 0-255, upright; of a large JPEG, a smaller copy of the picture.
        width: Columns of the upright original, in pixels.
        height: Rows of the upright original, in pixels.
        colour: A small upright RGB copy to look for faces in; None where none are looked for.
        cut: Whether the file ended early, so that parts may be missing.
    """

    grey: npt.NDArray[np.uint8]
    width: int
    height: int
    colour: Image.Image | None = None
    cut: bool = False


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
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # the pool's threads are enough
    if "HEIF" in FORMATS:
        pillow_heif = importlib.import_module("pillow_heif")
        pillow_heif.register_heif_opener(thumbnails=False)
        pillow_heif.options.DECODE_THREADS = 1


def weigh(
    data: Data,
    spec: InputSpec,
    max_pixels: int,
    search: FaceSearch = NO_SEARCH,
) -> Cost:
    """Say what a picture will take, from its head and the number of its scans.

    A large JPEG in which faces are looked for counts twice: it is decoded again, with more pixels,
    where a finer look is taken, and both pictures are kept until then.

    Args:
        data: As of `decode`, like the rest.
        spec: Likewise.
        max_pixels: Likewise.
        search: Likewise.

    Raises:
        ServiceError: Any kind that `decode` raises before it decodes.
    """
    data = _completed(data)
    if plain := _recognise(data, max_pixels):
        size = plain.width, plain.height
        return cost_of_jpeg(size, _decoded_sizes(*size, spec, search), len(data), None)
    with _opened(data, max_pixels) as image:
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            if (head := read_jpeg_head(data)) is None:
                raise _damaged()
            sizes = _decoded_sizes(*image.size, spec, search)
            return cost_of_jpeg(image.size, sizes, len(data), head)
        return cost_of(image, len(data), search.looks_in(*image.size))


def decode(
    data: Data,
    spec: InputSpec,
    max_pixels: int,
    search: FaceSearch = NO_SEARCH,
) -> Picture:
    """Read a picture. Any thread may call it; it releases the interpreter's lock for most of it.

    EXIF orientation is obeyed. What is transparent is shown on white, the page that cut-outs are
    made for: the colour stored behind transparency is arbitrary, and mostly black. What it takes
    is bounded by `max_pixels` alone: whoever cannot afford that weighs the picture before. A JPEG
    that was cut is read as far as it goes, and broken parts of a PNG beside its pixels are left
    out, as browsers do.

    Args:
        data: The picture's bytes, of one of `FORMATS`; of several frames the first.
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
        OutOfMemory: The process cannot have the memory for it.
    """
    picture = _decode(_completed(data), spec, max_pixels, search)
    return replace(picture, cut=True) if _is_cut(data) else picture


def _decode(data: Data, spec: InputSpec, max_pixels: int, search: FaceSearch) -> Picture:
    plain = _recognise(data, max_pixels)
    try:
        if plain and (picture := _read_plain(data, plain, spec, search)):
            return picture
    except MemoryError:
        raise _out_of_memory() from None
    with _opened(data, max_pixels) as image:
        return _read(image, spec, search)


def _completed(data: Data) -> Data:
    return complete_jpeg(data) if _is_cut(data) else data  # type: ignore[arg-type] # no view is cut


def _is_cut(data: Data) -> bool:
    return not isinstance(data, memoryview) and is_cut_jpeg(data)


def _recognise(data: Data, max_pixels: int) -> PlainJpeg | None:
    if not data:
        raise NoImage("The image is empty; send the bytes of a picture.")
    if not isinstance(data, bytes | bytearray) or not (plain := recognise_plain(data)):
        return None
    _refuse_size(plain.width, plain.height, max_pixels)
    return plain


@contextmanager
def _opened(data: Data, max_pixels: int) -> Iterator[Image.Image]:
    """Give a picture whose head is sound; whatever is found wrong with it becomes our own error."""
    try:
        with _open(data) as image:
            _refuse_large(image, max_pixels)
            _refuse_slow(image, data)
            yield image
    except ServiceError:
        raise
    except MemoryError:
        raise _out_of_memory() from None
    except NotFiniteError:
        raise BadImage("The image has values that are not finite numbers.") from None
    except UnidentifiedImageError:
        raise _unidentified(bytes(data[:16])) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(max_pixels) from None
    except _DECODER_ERRORS as error:
        if _is_short_of_memory():
            raise _out_of_memory() from error
        raise _damaged() from error


def _open(data: Data) -> Image.Image:
    """Open a file; what spoils a PNG beside its pixels is met here, before any of them."""
    try:
        return Image.open(BytesIO(data), formats=FORMATS)
    except _DECODER_ERRORS:
        if isinstance(data, memoryview) or (stripped := strip_png(data)) is None:
            raise
    return Image.open(BytesIO(stripped), formats=FORMATS)


def _is_short_of_memory() -> bool:
    """Tell whether a decoder may have failed for want of memory, which not all of them say."""
    try:
        np.empty(_PROBE_BYTES, np.uint8)  # of address space: no page of it is touched
    except MemoryError:
        return True
    return False


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


def _refuse_slow(image: Image.Image, data: Data) -> None:
    """Refuse what is small in bytes and pixels and yet keeps a decoder busy."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        sizes = [image.tag_v2.get(tag, ()) for tag in (279, 325)]
        compressed = any(tile[0] == "libtiff" for tile in image.tile)
        if compressed and sum(map(int, (*sizes[0], *sizes[1]))) > len(data):
            raise BadImage("The image uses the same bytes several times; save it anew.")
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
    orientation = orientation_of(image)
    if orientation >= 5:
        width, height = height, width
    colour = shrunk_colour(image) if looks else None
    if colour is not None:
        colour = Image.fromarray(turned(np.asarray(colour), orientation))
    return Picture(turned(grey_levels(image), orientation), width, height, colour)


def _read_plain(
    data: Data, plain: PlainJpeg, spec: InputSpec, search: FaceSearch
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
    return Picture(grey_levels(image), plain.width, plain.height, colour)


def _reduced(
    width: int, height: int, spec: InputSpec, search: FaceSearch
) -> tuple[str | None, tuple[int, int]]:
    """Return mode and size that a JPEG is decoded to; as the mode None where it is as it is."""
    if search.looks_in(width, height):
        mode, needed, side = "RGB", search.detail, max(width, height)
    else:
        mode, needed, side = "L", DETAIL * max(spec.width, spec.height), min(width, height)
    for scale in (8, 4, 2, 1):
        # One that does not divide both sides stretches the picture by part of a pixel: of so many
        # that is nothing.
        whole = width % scale == height % scale == 0 or side >= SEARCHED_SIDE * scale
        if whole and side >= needed * scale:
            return mode, (max(1, width // scale), max(1, height // scale))
    return None, (width, height)


def _decoded_sizes(
    width: int, height: int, spec: InputSpec, search: FaceSearch
) -> set[tuple[int, int]]:
    """Return the sizes that a JPEG may be decoded to, one after the other."""
    finer = replace(search, detail=FINEST_SIDE)
    return {_reduced(width, height, spec, each)[1] for each in (search, finer)}


def _too_many_pixels(max_pixels: int) -> TooManyPixels:
    return TooManyPixels(f"The image has more than {max_pixels} pixels; send a smaller one.")


def _damaged() -> BadImage:
    return BadImage("The image is damaged or incomplete; check that it opens in a viewer.")


def _out_of_memory() -> OutOfMemory:
    _log.error("no memory for a picture; lower FER_MAX_DECODE_BYTES or give the service more")
    return OutOfMemory("There is no memory for the image at present; try again shortly.", 1.0)


def _unidentified(head: bytes) -> ServiceError:
    for offset, magic, name in _UNREADABLE:
        if head.startswith(magic, offset):
            if _FORMAT_OF.get(name) in FORMATS:
                return _damaged()
            what = "one of its frames" if name.endswith("video") else "the picture"
            return UnsupportedType(f"{name} is not read; send {what} as {READABLE}.")
    return BadImage(f"These bytes are not a picture that is read here; send {READABLE}.")
