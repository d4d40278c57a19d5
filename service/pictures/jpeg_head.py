"""What a JPEG file says of itself: its frame, and how many scans will pass over it.

Each scan is a pass over every pixel of its components, however few bytes it has. They are counted
as libjpeg does that, marker by marker up to the end of the image, so that neither a thumbnail nor
what a phone keeps behind the picture counts.
"""

import re
from dataclasses import dataclass

_MAX_MARKERS = 2000
"""Files with more, which a decoder would take long to walk, have endless scans."""
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class JpegHead:
    """One file's frame and scans.

    Attributes:
        samples: Coefficients of all components together, after subsampling.
        arithmetic: They are coded arithmetically, else by Huffman's code.
        buffered: All of them are kept in memory until the last scan.
        scans: Passes over the picture.
    """

    samples: int
    arithmetic: bool
    buffered: bool
    scans: float


def read_jpeg_head(data: bytes | bytearray | memoryview) -> JpegHead | None:
    """Read a file's frame and count its scans; None where there is no frame before a scan.

    Args:
        data: Anything; bounded time, and one pass through it.
    """
    frame: bytes | None = None
    marker, components, scans, at = 0, 0, 0, 2
    for _ in range(_MAX_MARKERS):
        found = _MARKER.search(data, at)
        if found is None or found[1][0] == _EOI:
            break
        kind, at = found[1][0], found.end()
        segment = bytes(data[at : at + 2])
        # Below 0xC0 is nothing that libjpeg passes over by its length.
        if kind < 0xC0 or kind == _SOI or len(segment) < 2:
            continue
        length = int.from_bytes(segment, "big")
        if kind in _FRAMES and frame is None:
            marker, frame = kind, bytes(data[at : at + min(length, 8 + 3 * 255)])
        elif kind == _SOS:
            scans += 1
            components = components or bytes(data[at + 2 : at + 3] or b"\0")[0]
        at += max(2, length)
    else:
        return _head(frame or b"", marker, components, float("inf"))
    return _head(frame, marker, components, scans) if frame is not None and scans else None


def _head(frame: bytes, marker: int, components: int, scans: float) -> JpegHead:
    width, height = int.from_bytes(frame[5:7], "big"), int.from_bytes(frame[3:5], "big")
    factors = [(byte >> 4, byte & 15) for byte in frame[9::3]]
    most = max((h for h, _ in factors), default=1) * max((v for _, v in factors), default=1)
    shares = sum(h * v for h, v in factors) / max(1, most)
    progressive = marker & 3 == 2
    return JpegHead(
        samples=round(_padded(width) * _padded(height) * shares),
        arithmetic=marker >= 0xC9,
        buffered=progressive or components < len(factors),
        scans=scans,
    )


def _padded(side: int) -> int:
    return (side + 15) // 16 * 16
