"""Picture files that are slightly broken and that browsers show: they are completed, not refused.

A JPEG that was cut is shown as far as it goes. Parts of a PNG that do not change its pixels cannot
spoil it. Both need no second decoder: the file is changed so that the usual one reads it.
"""

import zlib

_JPEG, _SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_PNG = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND"))
# They change how the picture is shown: transparency, orientation. Kept if they are sound.
_USEFUL_CHUNKS = frozenset((b"tRNS", b"eXIf"))
_MAX_CHUNKS = 20_000


def is_cut_jpeg(data: bytes | bytearray) -> bool:
    """Return whether a file is a JPEG with pixels and without its end.

    Within a scan the two bytes of the end cannot occur.

    Args:
        data: Any file.
    """
    if not data.startswith(_JPEG) or data.endswith(_JPEG_END):  # nearly every file
        return False
    return data.rfind(_JPEG_END) < data.rfind(_SCAN)


def complete_jpeg(data: bytes | bytearray) -> bytes | bytearray:
    """Return a cut JPEG with an end: decoders then fill what is missing with grey."""
    # A lone first byte of the end, or of any marker, would spoil the one that follows.
    return data.rstrip(b"\xff") + _JPEG_END


def strip_png(data: bytes | bytearray) -> bytes | None:
    """Return a PNG without the chunks that do not change its pixels.

    Args:
        data: Any file.

    Returns:
        The file; None if it is no PNG, or has nothing to leave out.
    """
    if not data.startswith(_PNG):
        return None
    at, left_out = len(_PNG), False
    kept: list[bytes | memoryview] = [_PNG]
    for _ in range(_MAX_CHUNKS):
        if at + 12 > len(data):
            break
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name, chunk = bytes(data[at + 4 : at + 8]), memoryview(data)[at:end]
        if name in _PIXEL_CHUNKS or (name in _USEFUL_CHUNKS and _is_sound(chunk)):
            kept.append(chunk)
        else:
            left_out = True
        if name == b"IEND":
            break
        at = end
    return b"".join(kept) if left_out else None


def _is_sound(chunk: memoryview) -> bool:
    return len(chunk) >= 12 and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
