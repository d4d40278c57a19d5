"""Picture files of every format that the service reads, and ways to spoil them."""

import random
import struct

import numpy as np
from PIL import Image, ImageOps

from tests.service.made_pictures import encoded, ramp

_INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000)


def seeds() -> dict[str, list[bytes]]:
    """Return sound files by format: modes, compressions, orientations, frames."""
    grey = ramp(48, 40)
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 3), np.uint8)
    rgb = Image.fromarray(noise)
    palette, rgba = rgb.quantize(16), rgb.convert("RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    wide = Image.fromarray(np.asarray(grey).astype(np.float32))
    return {
        "JPEG": [
            encoded(grey, "JPEG"),
            encoded(rgb, "JPEG", exif=exif, progressive=True),
            encoded(rgb.convert("CMYK"), "JPEG", restart_marker_blocks=2),
            encoded(ramp(400, 400), "JPEG", quality=30),  # large enough for a draft
        ],
        "PNG": [
            encoded(grey, "PNG"),
            encoded(deep, "PNG", compress_level=0),
            encoded(palette, "PNG", transparency=3, bits=4),
            encoded(rgba, "PNG", exif=exif),
            encoded(
                grey,
                "PNG",
                save_all=True,
                append_images=[ImageOps.flip(grey)],
            ),
        ],
        "WEBP": [
            encoded(rgb, "WEBP", exif=exif),
            encoded(rgba, "WEBP", lossless=True),
            encoded(
                rgb,
                "WEBP",
                save_all=True,
                append_images=[ImageOps.flip(rgb)],
            ),
        ],
        "BMP": [
            encoded(grey, "BMP"),
            encoded(rgb, "BMP"),
            encoded(palette, "BMP"),
            run_length_bmp(),
        ],
        "GIF": [
            encoded(palette, "GIF", transparency=1),
            encoded(
                grey,
                "GIF",
                save_all=True,
                append_images=[ImageOps.flip(grey)],
                comment=b"x",
            ),
        ],
        "TIFF": [
            encoded(grey, "TIFF"),
            encoded(rgb, "TIFF", compression="tiff_lzw", exif=exif),
            encoded(rgb, "TIFF", compression="jpeg"),
            encoded(rgba, "TIFF", compression="tiff_adobe_deflate"),
            encoded(grey.convert("1"), "TIFF", compression="group4"),
            encoded(deep, "TIFF", compression="packbits"),
            encoded(wide, "TIFF"),
            encoded(rgb.convert("LAB"), "TIFF"),
            encoded(rgb.convert("YCbCr"), "TIFF", compression="raw"),
        ],
    }


def run_length_bmp() -> bytes:
    """Return a BMP of 8 by 4 pixels coded by run lengths, which Pillow reads and does not write."""
    rows = b"\x08\x01\x00\x00" * 4 + b"\x00\x01"
    palette = bytes(1024)
    header = struct.pack("<IiiHHIIiiII", 40, 8, 4, 1, 8, 1, len(rows), 1, 1, 256, 0)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + palette + rows


def spoiled(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Return the file with one to eight things wrong."""
    spoilt = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 3, 5, 8))):
        if spoilt:
            chance.choice(_WAYS)(spoilt, others, chance)
    return bytes(spoilt)


def _place(data: bytearray, chance: random.Random) -> int:
    # Headers are where a little does a lot.
    limit = len(data) if chance.random() < 0.5 else min(len(data), 256)
    return chance.randrange(limit)


def _flip(data: bytearray, _: list[bytes], chance: random.Random) -> None:
    data[_place(data, chance)] ^= 1 << chance.randrange(8)


def _randomise(data: bytearray, _: list[bytes], chance: random.Random) -> None:
    start = _place(data, chance)
    size = min(chance.randint(1, 16), len(data) - start)
    data[start : start + size] = chance.randbytes(size)


def _set_number(data: bytearray, _: list[bytes], chance: random.Random) -> None:
    size, order = chance.choice((1, 2, 4)), chance.choice(("little", "big"))
    number = (chance.choice(_INTERESTING) & (256**size - 1)).to_bytes(size, order)
    start = _place(data, chance)
    data[start : start + size] = number[: len(data) - start]


def _remove(data: bytearray, _: list[bytes], chance: random.Random) -> None:
    start = _place(data, chance)
    del data[start : start + chance.randint(1, 32)]


def _repeat(data: bytearray, _: list[bytes], chance: random.Random) -> None:
    start = _place(data, chance)
    data[start:start] = data[start : start + chance.randint(1, 64)] * chance.randint(1, 8)


def _splice(data: bytearray, others: list[bytes], chance: random.Random) -> None:
    other = chance.choice(others)
    start, source = _place(data, chance), chance.randrange(len(other))
    data[start : start + 64] = other[source : source + 64]


def _cut(data: bytearray, _: list[bytes], chance: random.Random) -> None:
    del data[_place(data, chance) :]


_WAYS = (_flip, _flip, _randomise, _set_number, _set_number, _remove, _repeat, _splice, _cut)


def multi_scan_jpeg(
    frame: int, width: int, height: int, scans: int, components: int = 3, factor: int = 1
) -> bytes:
    """Return a JPEG of many scans without a bit of data; each passes over all the picture.

    Args:
        frame: The marker of its frame, 0xC0 to 0xCF.
        width: In pixels.
        height: Likewise.
        scans: How many.
        components: 1 to 4.
        factor: How many times as wide and high the first component is as the others, 1 to 4.
    """
    data = bytearray(b"\xff\xd8\xff\xdb\x00\x43\x00" + bytes([1] * 64))
    for table in (0x00, 0x10):  # one code, one bit long: zero, or the end of a block
        data += b"\xff\xc4\x00\x14" + bytes([table, 1, *[0] * 15, 0])
    sizes = [0x11 * factor, *[0x11] * (components - 1)]
    data += struct.pack(">BBHBHHB", 0xFF, frame, 8 + 3 * components, 8, height, width, components)
    data += b"".join(bytes([number + 1, size, 0]) for number, size in enumerate(sizes))
    progressive = frame & 3 == 2
    for number in range(scans):
        # By turns, or an encoder of one component's refinements, which no decoder refuses.
        first, last = (0, 0) if number < components else (1, 63)
        ends = bytes([first, last, 0]) if progressive else b"\x00\x3f\x00"
        data += b"\xff\xda\x00\x08\x01" + bytes([number % components + 1, 0]) + ends
    return bytes(data + b"\xff\xd9")
