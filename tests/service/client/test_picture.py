"""What is drawn on, beside what the service's own decoder makes of the same bytes."""

import io
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile

from service.client.picture import prepare_pillow, read_picture
from service.pictures.decode import decode
from training.model.manifest import InputSpec

SIZE = (90, 60)
LEVELS = np.linspace(0, 1, SIZE[0] * SIZE[1]).reshape(SIZE[1], SIZE[0])
GREY8 = Image.fromarray((LEVELS * 255).astype(np.uint8))
GREY16 = Image.fromarray((LEVELS * 65_535).astype(np.uint16))


def alpha() -> Image.Image:
    """Black behind a slope of transparency, as cut-outs have it."""
    picture = Image.new("RGBA", SIZE)
    picture.putalpha(GREY8)
    return picture


def key(mode: str, colour: Any) -> tuple[Image.Image, dict[str, Any]]:
    return {"I;16": GREY16}.get(mode, GREY8).convert(mode), {"transparency": colour}


def palette() -> Image.Image:
    picture = GREY8.convert("P")
    picture.info["transparency"] = bytes(range(256))
    return picture


def oriented(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = number
    return exif


def broken_exif() -> bytes:
    return b"Exif\x00\x00II*\x00" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 0xFFFFFF, 0xFFFFFF)


def float_of(low: float, high: float) -> Image.Image:
    return Image.fromarray((low + LEVELS * (high - low)).astype(np.float32))


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


COLOUR = Image.merge("RGB", (GREY8, GREY8.rotate(180), Image.new("L", SIZE, 128)))


def jpeg_of(orientation: int) -> bytes:
    return saved(COLOUR, "JPEG", quality=95, exif=oriented(orientation))


XMP = b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
PICTURES: dict[str, Callable[[], bytes]] = {
    "png": lambda: saved(COLOUR, "PNG"),
    "png 1 bit": lambda: saved(GREY8.convert("1"), "PNG"),
    "png 16 bits": lambda: saved(GREY16, "PNG"),
    "png 16 bits with a key": lambda: saved(GREY16, "PNG", transparency=0),
    "png alpha": lambda: saved(alpha(), "PNG"),
    "png grey and alpha": lambda: saved(alpha().convert("LA"), "PNG"),
    "png palette with alpha": lambda: saved(palette(), "PNG"),
    "png with a key": lambda: saved(COLOUR, "PNG", transparency=COLOUR.getpixel((3, 3))),
    "png grey with a key": lambda: saved(GREY8, "PNG", transparency=7),
    "webp alpha": lambda: saved(alpha(), "WEBP", lossless=True, exact=True),
    "gif with a key": lambda: saved(GREY8.convert("P"), "GIF", transparency=9),
    "bmp": lambda: saved(COLOUR, "BMP"),
    "jpeg": lambda: saved(COLOUR, "JPEG", quality=95),
    "jpeg cmyk": lambda: saved(COLOUR.convert("CMYK"), "JPEG", quality=95),
    "jpeg broken exif": lambda: saved(COLOUR, "JPEG", exif=broken_exif()),
    **{f"jpeg orientation {n}": partial(jpeg_of, n) for n in range(10)},
    "jpeg orientation in xmp": lambda: saved(COLOUR, "JPEG", xmp=XMP),
    "avif orientation 6": lambda: saved(COLOUR, "AVIF", quality=100, exif=oriented(6)),
    "png orientation 6": lambda: saved(COLOUR, "PNG", exif=oriented(6)),
    "webp orientation 8": lambda: saved(COLOUR, "WEBP", lossless=True, exif=oriented(8)),
    "tiff 16 bits": lambda: saved(GREY16, "TIFF"),
    "tiff 16 bits big-endian": lambda: saved(
        Image.fromarray(np.asarray(GREY16).astype(">u2")), "TIFF"
    ),
    "tiff 32 bits": lambda: saved(
        Image.fromarray((LEVELS * 70_000 - 10_000).astype(np.int32)), "TIFF"
    ),
    "tiff one level": lambda: saved(Image.new("F", SIZE, 3.5), "TIFF"),
    "tiff float": lambda: saved(float_of(0.0, 1.0), "TIFF"),
    "tiff float, wide": lambda: saved(float_of(-1e6, 3e6), "TIFF"),
    "tiff lab": lambda: saved(Image.new("LAB", SIZE, (120, 3, 200)), "TIFF"),
    "tiff alpha": lambda: saved(alpha(), "TIFF"),
    "tiff orientation 6": lambda: saved(COLOUR, "TIFF", exif=oriented(6)),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about broken metadata
@pytest.mark.parametrize("name", PICTURES)
def test_the_picture_is_the_one_that_the_service_saw(name: str) -> None:
    content = PICTURES[name]()
    seen = decode(content, InputSpec(), max_pixels=10**6)
    picture = read_picture(content)
    assert (picture.mode, picture.size) == ("RGB", (seen.width, seen.height))
    grey = np.asarray(picture.convert("L")).astype(int)
    # A JPEG's luma is read without its colours by the service, and a grey on white is rounded once.
    assert np.abs(grey - seen.grey).mean() <= (1.0 if "jpeg" in name else 0.5)
    assert np.abs(grey - seen.grey).max() <= (6 if "jpeg" in name else 1)


def test_levels_are_neither_white_nor_black() -> None:
    for name in ("png 16 bits", "tiff 16 bits", "tiff 32 bits", "tiff float"):
        low, high = read_picture(PICTURES[name]()).convert("L").getextrema()
        assert (low, high) == (0, 255)
        assert len(set(read_picture(PICTURES[name]()).convert("L").tobytes())) > 200


def broken_side_chunk() -> bytes:
    content = saved(COLOUR, "PNG")
    chunk = struct.pack(">I", 4) + b"tEXt" + b"a\x00bc" + b"\x00" * 4  # with a wrong checksum
    return content[:33] + chunk + content[33:]


def cut_jpeg() -> bytes:
    content = saved(COLOUR, "JPEG", quality=95)
    return content[: len(content) * 2 // 3]


@pytest.mark.parametrize("damaged", [broken_side_chunk, cut_jpeg])
def test_what_the_service_mends_is_shown(
    damaged: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = decode(damaged(), InputSpec(), max_pixels=10**6)
    for module, name in ((ImageFile, "LOAD_TRUNCATED_IMAGES"), (Image, "MAX_IMAGE_PIXELS")):
        monkeypatch.setattr(module, name, getattr(module, name))  # as it was, after the test
    prepare_pillow()
    rows = np.s_[: SIZE[1] // 2]  # of the cut picture the part that is there
    grey = np.asarray(read_picture(damaged()).convert("L")).astype(int)
    assert np.abs(grey - seen.grey)[rows].max() <= 6


def test_nothing_of_another_mode_is_kept() -> None:
    profile = {"icc_profile": b"of another mode"}
    assert read_picture(saved(COLOUR.convert("CMYK"), "JPEG", **profile)).info == {}
    assert read_picture(PICTURES["png with a key"]()).info == {}


@pytest.mark.parametrize("content", [b"", b"no picture", PICTURES["png"]()[:60]])
def test_what_pillow_cannot_read(content: bytes) -> None:
    with pytest.raises(ValueError, match="Pillow cannot read"):
        read_picture(content)
