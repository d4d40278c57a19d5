"""Plain JPEG files, read by libjpeg-turbo without Pillow around it, to the same pixels.

Plain is what most clients send: baseline, grey or colour, one scan, and no metadata that would
change how the picture is shown. All else is Pillow's, and so is what turns out to be damaged, so
that a file is refused for the same reason in either way.
"""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

try:
    from simplejpeg import decode_jpeg
except ImportError:  # no wheel for this platform: Pillow reads everything
    decode_jpeg = None

_START, _FRAME, _SCAN = b"\xff\xd8", 0xC0, 0xDA
# Tables, restart interval, JFIF, colour profile, comment. EXIF and Adobe's are not among them.
_PASSED_OVER = frozenset((0xC4, 0xDB, 0xDD, 0xE0, 0xE2, 0xFE))
_MOST_SEGMENTS = 64
# Three times as fast as to look for it with `find`.
_ANOTHER_SCAN = re.compile(b"\xff\xda")


@dataclass(frozen=True, slots=True)
class PlainJpeg:
    """What the head of a plain JPEG says.

    Attributes:
        width: Columns, 1 or more.
        height: Rows, 1 or more.
        grey: Whether it has one component; else three.
    """

    width: int
    height: int
    grey: bool


def recognise_plain(data: bytes | bytearray) -> PlainJpeg | None:
    """Read the head of a file; None unless it is a plain JPEG and can be read here.

    Args:
        data: Anything; in a few steps, however long it is, apart from one search through it.
    """
    if decode_jpeg is None or not data.startswith(_START):
        return None
    found, at = None, len(_START)
    for _ in range(_MOST_SEGMENTS):
        segment = data[at : at + 10]
        if len(segment) < 10 or segment[0] != 0xFF:
            return None
        marker, length = segment[1], int.from_bytes(segment[2:4], "big")
        if marker == _SCAN:
            # Each further scan would cost a pass over all pixels.
            return None if _ANOTHER_SCAN.search(data, at + 2) else found
        if marker == _FRAME and found is None:
            found = _frame(segment)
        elif marker not in _PASSED_OVER:
            return None
        at += 2 + length
    return None


def read_plain(
    data: bytes | bytearray | memoryview, mode: str, width: int, height: int
) -> npt.NDArray[np.uint8] | None:
    """Decode a plain JPEG. Any thread may call it; it releases the interpreter's lock.

    Args:
        data: What `recognise_plain` has recognised, and whose size is known to be bearable.
        mode: "L", its luma alone, or "RGB".
        width: Columns wanted: the file's own, or a half, a quarter or an eighth of them.
        height: Rows wanted, likewise.

    Returns:
        uint8[height, width] or, of RGB, uint8[height, width, 3], 0-255; None where anything in
        the file is wrong, which Pillow may yet forgive.
    """
    colourspace = {"L": "GRAY", "RGB": "RGB"}[mode]
    try:
        pixels = decode_jpeg(data, colourspace, min_height=height, min_width=width)
    except (ValueError, MemoryError):
        return None
    result: npt.NDArray[np.uint8] = pixels[:, :, 0] if mode == "L" else pixels
    return result


def _frame(segment: bytes | bytearray) -> PlainJpeg | None:
    """Read marker, length, bits of a sample, rows, columns, components: ten bytes."""
    height, width = int.from_bytes(segment[5:7], "big"), int.from_bytes(segment[7:9], "big")
    if segment[4] != 8 or segment[9] not in (1, 3) or not width or not height:
        return None
    return PlainJpeg(width, height, segment[9] == 1)
