"""Estimates the memory and the time of decoding a picture from its head, before it is decoded.

The constants are upper bounds for each format and mode. They were measured with pictures that were
made to take most, and the tests measure them again. Times are of one core at about 3 GHz.
"""

import threading
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass

from PIL import Image, TiffImagePlugin

from service.errors import TooManyPixels
from service.pictures.jpeg_head import JpegHead
from service.pictures.search import shrinking

LIGHT_BYTES, LIGHT_S = 16 << 20, 0.15
"""A picture that takes no more than both is light: it need not wait for others' memory."""

_BESIDE_BYTES = 4 << 20  # strips, the small copy in colour, tables
# Of each pixel: Pillow's picture by mode (4 for all others), and two copies in grey.
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
_GREY = 2
# Beside that: libwebp's canvases and its own copies; GIF's frame before; what Pillow makes of
# run-length coded BMP; the planes of video codecs.
_BESIDE = {"WEBP": 12, "GIF": 1, "BMP_RLE": 4, "AVIF": 12, "HEIF": 12}
_JPEG_PIXEL = 9  # of the reduced picture: RGB, Pillow's copy, two in grey
_COEFFICIENT = 2
_COLOUR, _COLOUR_FROM = 8, 26  # of each pixel of the copy in colour: made straight, or on white

_PIXEL_S = {"WEBP": 30e-9, "BMP_RLE": 120e-9, "AVIF": 60e-9, "HEIF": 60e-9}
_OTHER_PIXEL_S, _TRANSPARENT_S, _BYTE_S = 20e-9, 12e-9, 20e-9
_JPEG_PIXEL_S, _JPEG_BYTE_S = 4e-9, 10e-9
_SCAN_S, _ARITHMETIC_SCAN_S = 0.5e-9, 8e-9  # of each coefficient
_DETECTOR_S = 10e-3

# What a request may take: so much, and as much more as its bytes may well hold.
_FREE_S, _PAID_S = 0.6, 1e-6
_MOST_S = 4.0
"""What one picture may, whatever its size."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What decoding one picture takes at most.

    Attributes:
        bytes: Of memory at once, beside the file's own.
        seconds: Of one core.
    """

    bytes: int
    seconds: float

    @property
    def light(self) -> bool:
        """Whether it may go on beside whatever else is decoded."""
        return self.bytes <= LIGHT_BYTES and self.seconds <= LIGHT_S


class Allowance:
    """What one request may take of the decoders; any thread may spend it.

    Attributes:
        client: Who asks: the decoders go to each in turn.
        on_faces: Called with the number of faces of each of its pictures, on the event loop.
    """

    def __init__(
        self,
        sent_bytes: int,
        client: Hashable = None,
        on_faces: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Grant what so many bytes may take, whatever they hold.

        Args:
            sent_bytes: All of the request's pictures.
            client: Anything that is the same for all requests of a client.
            on_faces: Told how many faces each picture has.
        """
        self.client, self.on_faces = client, on_faces
        self._left_s = _FREE_S + _PAID_S * sent_bytes
        self._lock = threading.Lock()

    def spend(self, cost: Cost) -> None:
        """Take the time of one picture off it.

        Raises:
            TooManyPixels: There is not so much left, or nobody may take so much.
        """
        with self._lock:
            if cost.seconds > min(self._left_s, _MOST_S):
                raise TooManyPixels(
                    "Decoding would take too long for so few bytes; send a smaller image, and a "
                    "JPEG with fewer scans."
                )
            self._left_s -= cost.seconds


def cost_of_jpeg(
    size: tuple[int, int],
    decoded: Collection[tuple[int, int]],
    file_bytes: int,
    head: JpegHead | None,
) -> Cost:
    """Return what a JPEG takes.

    Args:
        size: Of the picture, in pixels.
        decoded: The size that it is decoded to; several where it is decoded several times.
        file_bytes: Of the file.
        head: Its scans; None where there is one alone.
    """
    kept = scans_s = 0.0
    if head is not None:
        kept = _COEFFICIENT * head.samples if head.buffered else 0
        each_s = _ARITHMETIC_SCAN_S if head.arithmetic else _SCAN_S
        scans_s = each_s * head.scans * head.samples
    seconds = _JPEG_PIXEL_S * size[0] * size[1] + _JPEG_BYTE_S * file_bytes + scans_s
    pixels = sum(width * height for width, height in decoded)
    return _total(_JPEG_PIXEL * pixels + kept, len(decoded) * seconds)


def cost_of(image: Image.Image, file_bytes: int, searched: bool = False) -> Cost:
    """Return what a picture of any format but JPEG takes.

    Args:
        image: Opened, not loaded.
        file_bytes: Of the file.
        searched: Whether faces are searched for in it, in a copy in colour.
    """
    kind, pixels = image.format or "", image.width * image.height
    if any(tile[0] == "bmp_rle" for tile in getattr(image, "tile", ())):
        kind = "BMP_RLE"
    each = _STORED.get(image.mode, 4) + _GREY + _BESIDE.get(kind, 0)
    beside: float = _tile_bytes(image) if isinstance(image, TiffImagePlugin.TiffImageFile) else 0
    pixel_s = _PIXEL_S.get(kind, _OTHER_PIXEL_S)
    if image.has_transparency_data:
        pixel_s += _TRANSPARENT_S
    seconds = pixel_s * pixels + _BYTE_S * file_bytes
    if searched:
        plain = image.mode != "P" and not image.has_transparency_data
        colour = pixels * shrinking(max(image.size)) ** 2
        beside += colour * (_COLOUR if plain else _COLOUR_FROM)
    return _total(each * pixels + beside, seconds)


def _total(beside: float, seconds: float) -> Cost:
    return Cost(round(beside) + _BESIDE_BYTES, seconds + _DETECTOR_S)


def _tile_bytes(image: TiffImagePlugin.TiffImageFile) -> int:
    """Return what libtiff holds of one strip or tile, which it decodes whole."""
    tags = image.tag_v2
    pixels = _tile_pixels(image)
    bits = max(map(int, tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))))
    samples = int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1))
    jpeg = 3 * _COEFFICIENT if "jpeg" in str(image.info.get("compression")) else 0
    return pixels * (max(4, samples * (bits + 7) // 8) + jpeg)


def _tile_pixels(image: TiffImagePlugin.TiffImageFile) -> int:
    tags = image.tag_v2
    if TiffImagePlugin.TILEWIDTH in tags:
        length = tags.get(TiffImagePlugin.TILELENGTH, 1)
        return int(tags[TiffImagePlugin.TILEWIDTH]) * int(length)
    rows = int(tags.get(TiffImagePlugin.ROWSPERSTRIP, image.height))
    return image.width * min(rows, image.height)
