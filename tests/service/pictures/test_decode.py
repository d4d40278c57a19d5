"""Tests of `service.pictures.decode`: every picture right, every hostile one refused by name."""

import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service.errors import (
    BadImage,
    NoImage,
    OutOfMemory,
    ServiceError,
    TooManyPixels,
    UnsupportedType,
)
from service.pictures import decode as module
from service.pictures.decode import decode, prepare_pillow
from service.pictures.faces import whole_picture
from service.pictures.search import NO_SEARCH, FaceSearch
from tests.service.made_pictures import encoded, ramp
from training.model.manifest import InputSpec

SPEC = InputSpec()
MAX_PIXELS = 1_000_000


@pytest.fixture(autouse=True)
def prepared() -> Iterator[None]:
    before = Image.MAX_IMAGE_PIXELS
    prepare_pillow(MAX_PIXELS)
    yield
    Image.MAX_IMAGE_PIXELS = before


def read(data: bytes) -> np.ndarray:
    return decode(data, SPEC, MAX_PIXELS).grey


def assert_close(grey: np.ndarray, expected: object, most: int) -> None:
    difference = np.abs(grey.astype(int) - np.asarray(expected, int))
    assert difference.max() <= most, f"differs by {difference.max()}"


def colours() -> Image.Image:
    levels = np.arange(64 * 64 * 3).reshape(64, 64, 3)
    return Image.fromarray((levels // 97 % 256).astype(np.uint8))


@pytest.mark.parametrize(
    ("kind", "options", "most"),
    [
        ("JPEG", {"quality": 95}, 4),
        ("JPEG", {"quality": 95, "progressive": True}, 4),
        ("PNG", {}, 0),
        ("WEBP", {"lossless": True}, 1),
        ("WEBP", {"quality": 95}, 6),
        ("BMP", {}, 0),
        ("GIF", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("TIFF", {"compression": "tiff_deflate"}, 0),
    ],
)
def test_each_format_in_grey(kind: str, options: dict[str, object], most: int) -> None:
    picture = decode(encoded(ramp(), kind, **options), SPEC, MAX_PIXELS)
    assert (picture.width, picture.height) == (96, 64)
    assert picture.grey.dtype == np.uint8
    assert_close(picture.grey, ramp(), most)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_each_opaque_mode(kind: str, mode: str) -> None:
    image = colours().convert(mode)
    assert_close(read(encoded(image, kind)), image.convert("L"), 0)


@pytest.mark.parametrize("container", [bytes, bytearray, memoryview])
def test_any_buffer_is_read(container: type) -> None:
    picture = decode(container(encoded(ramp(), "PNG")), SPEC, MAX_PIXELS)
    assert_close(picture.grey, ramp(), 0)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_seen_on_white(kind: str) -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))  # black behind glass: white
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 128))
    options = {"lossless": True} if kind == "WEBP" else {}
    assert_close(read(encoded(image, kind, **options)), [[255, 0, 127]], 1)


def test_grey_with_alpha() -> None:
    image = Image.new("LA", (2, 1), (40, 255))
    image.putpixel((1, 0), (40, 0))
    assert_close(read(encoded(image, "PNG")), [[40, 255]], 0)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_colour(kind: str) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 90, 90, 90])
    image.putdata([0, 1])
    assert_close(read(encoded(image, kind, transparency=0)), [[255, 90]], 0)


def test_a_palette_with_alpha() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 90, 90, 90, 0, 0, 0])
    image.putdata([0, 1, 2])
    assert_close(read(encoded(image, "PNG", transparency=b"\x00\xff\x80")), [[255, 90, 127]], 1)


@pytest.mark.parametrize(
    ("mode", "transparent", "expected"),
    [("RGB", (10, 20, 30), [[255, 90]]), ("L", 10, [[255, 90]]), ("I;16", 10, [[255, 90]])],
)
def test_a_transparent_colour_without_palette(
    mode: str, transparent: object, expected: object
) -> None:
    image = Image.new(mode, (2, 1))
    other = {"RGB": (90, 90, 90), "L": 90, "I;16": 90 * 257}[mode]
    image.putpixel((0, 0), transparent)  # type: ignore[arg-type]
    image.putpixel((1, 0), other)  # type: ignore[arg-type]
    assert_close(read(encoded(image, "PNG", transparency=transparent)), expected, 0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_are_scaled_not_clipped(kind: str) -> None:
    values = np.asarray(ramp(), np.uint16) * 257
    assert_close(read(encoded(Image.fromarray(values), kind)), ramp(), 0)


def test_16_bits_of_either_endianness() -> None:
    values = np.asarray(ramp(), np.uint16) * 257
    data = encoded(Image.fromarray(values), "TIFF")
    assert data[:2] == b"II"
    big = b"MM\x00\x2a" + struct.pack(">I", 8)
    tags = ((256, 96), (257, 64), (258, 16), (259, 1), (262, 1), (273, 110), (277, 1), (279, 12288))
    big += struct.pack(">H", len(tags))
    for tag, value in tags:
        big += struct.pack(">HHI", tag, 4, 1) + struct.pack(">I", value)
    big = big.ljust(110, b"\x00") + values.astype(">u2").tobytes()
    assert_close(read(big), ramp(), 0)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bits_are_stretched(dtype: Any) -> None:
    values = np.array([[-1000, 0, 1000]], dtype)
    assert_close(read(encoded(Image.fromarray(values), "TIFF")), [[0, 128, 255]], 0)
    flat = np.full((2, 2), 7, dtype)
    assert_close(read(encoded(Image.fromarray(flat), "TIFF")), np.zeros((2, 2)), 0)


def test_floats_that_are_not_finite_are_refused() -> None:
    values = np.array([[0.0, np.nan]], np.float32)
    with pytest.raises(BadImage, match="finite"):
        read(encoded(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str) -> None:
    image = colours().convert("CMYK")
    options = {"quality": 100} if kind == "JPEG" else {}
    assert_close(read(encoded(image, kind, **options)), image.convert("RGB").convert("L"), 8)


@pytest.mark.parametrize("mode", ["LAB", "YCbCr"])
def test_lightness_of_other_colour_spaces(mode: str) -> None:
    lightness = np.asarray(ramp())
    image = Image.merge(mode, [ramp(), *[Image.new("L", ramp().size, 128)] * 2])
    assert_close(read(encoded(image, "TIFF")), lightness, 0)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_of_several_frames(kind: str) -> None:
    frames = [Image.new("L", (8, 8), level) for level in (50, 200, 100)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert_close(read(data), np.full((8, 8), 50), 1)


ORIENTATIONS: dict[int, Callable[[Any], Any]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_is_obeyed(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    kinds: dict[str, dict[str, Any]] = {"JPEG": {"quality": 98}, "WEBP": {"lossless": True}}
    picture = decode(encoded(ramp(), kind, exif=exif, **kinds.get(kind, {})), SPEC, MAX_PIXELS)
    assert_close(picture.grey, ORIENTATIONS[orientation](np.asarray(ramp())), 3)
    assert (picture.height, picture.width) == picture.grey.shape


def test_orientation_of_a_reduced_picture_tells_the_original_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(ramp(800, 640), "JPEG", exif=exif)
    picture = decode(data, SPEC, MAX_PIXELS)
    assert (picture.width, picture.height) == (640, 800)
    assert picture.grey.shape == (400, 320)


def test_broken_metadata_does_not_break_a_picture() -> None:
    data = encoded(ramp(), "JPEG", quality=95, exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert_close(read(data), ramp(), 4)


@pytest.mark.parametrize("side", [192, 200, 384, 400, 640, 767, 800])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_a_reduced_jpeg_gives_the_same_face(side: int, subsampling: int) -> None:
    rng = np.random.default_rng(side)
    noise = Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).resize((side, side))
    data = encoded(noise, "JPEG", quality=90, subsampling=subsampling)
    face = whole_picture(decode(data, SPEC, MAX_PIXELS), SPEC)
    whole = np.asarray(Image.open(_file(data)).convert("L"))
    expected = Image.fromarray(whole).resize((48, 48), Image.Resampling.BILINEAR)
    assert_close(face.pixels, expected, 3)
    assert np.abs(face.pixels.astype(int) - np.asarray(expected)).mean() < 0.5


def test_a_large_jpeg_is_reduced_while_decoding() -> None:
    assert read(encoded(ramp(800, 800), "JPEG")).shape == (200, 200)
    assert read(encoded(ramp(801, 800), "JPEG")).shape == (800, 801)
    assert read(encoded(ramp(191, 191), "JPEG")).shape == (191, 191)


@pytest.mark.parametrize("search", [NO_SEARCH, FaceSearch("always")])
@pytest.mark.parametrize("size", [(2003, 1999), (1001, 7703), (3841, 2161)])
def test_a_large_jpeg_of_odd_sides_is_reduced_too(
    size: tuple[int, int], search: FaceSearch
) -> None:
    data = encoded(ramp(*size), "JPEG", quality=95)
    picture = decode(data, SPEC, 10**8, search)
    rows, columns = picture.grey.shape
    assert (picture.width, picture.height) == size
    if search.detect == "always" or min(size) >= 1920:
        assert rows * columns * 3 < size[0] * size[1]
    expected = ramp(*size).resize((columns, rows), Image.Resampling.BOX)
    assert_close(picture.grey, expected, 4)


# What is refused.


def test_nothing() -> None:
    with pytest.raises(NoImage):
        read(b"")


@pytest.mark.parametrize("data", [b"hello", b"\x00" * 100, b"\xff\xd8", b"GIF89a", b"II*\x00"])
def test_not_a_picture(data: bytes) -> None:
    with pytest.raises(BadImage):
        read(data)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n" + b"\x00" * 20, "JPEG XL"),
        (b"\xff\x0a" + b"\x00" * 20, "JPEG XL"),
        (b"\x00\x00\x00\x18ftypisom" + b"\x00" * 20, "MP4 video"),
        (b"\x00\x00\x00\x14ftypqt  " + b"\x00" * 20, "QuickTime video"),
        (b"\x1aE\xdf\xa3" + b"\x00" * 20, "Matroska or WebM video"),
        (b"RIFF\x00\x00\x00\x00AVI LIST" + b"\x00" * 20, "AVI video"),
        (b"%PDF-1.7\n", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    ],
)
def test_other_kinds_are_refused_by_name(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedType, match=f"^{name} is not read"):
        read(data)


@pytest.mark.parametrize("kind", ["PPM", "ICO", "TGA", "PCX", "EPS", "DDS", "SGI"])
def test_formats_beyond_the_six_are_not_opened(kind: str) -> None:
    with pytest.raises((BadImage, UnsupportedType)):
        read(encoded(Image.new("RGB", (16, 16)), kind))


@pytest.mark.parametrize(
    ("brand", "name", "kind"), [(b"heic", "HEIC", "HEIF"), (b"avif", "AVIF", "AVIF")]
)
@pytest.mark.parametrize("readable", [False, True])
def test_a_format_that_may_be_read_is_refused_by_name_or_as_broken(
    brand: bytes, name: str, kind: str, readable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if readable and kind not in module.FORMATS:
        pytest.skip(f"{kind} cannot be read here")
    known = tuple(format for format in module.FORMATS if readable or format != kind)
    monkeypatch.setattr(module, "FORMATS", known)
    with pytest.raises(
        BadImage if readable else UnsupportedType, match="damaged" if readable else name
    ):
        read(b"\x00\x00\x00\x18ftyp" + brand + b"\x00" * 20)


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_newer_formats_are_read_where_pillow_can(kind: str) -> None:
    if kind not in module.FORMATS:
        pytest.skip(f"{kind} cannot be read here")
    prepare_pillow(MAX_PIXELS)
    data = encoded(ramp().convert("RGB"), kind, quality=95)
    assert_close(read(data), np.asarray(ramp()), 6)
    with pytest.raises(TooManyPixels):
        read(encoded(Image.new("RGB", (1200, 1000)), kind))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated(kind: str, share: float) -> None:
    data = encoded(colours(), kind)
    with pytest.raises(BadImage):
        read(data[: int(len(data) * share)])


def test_too_many_pixels_is_told_from_the_header() -> None:
    header = struct.pack(">IIBBBBB", 1001, 1000, 8, 0, 0, 0, 0)
    with pytest.raises(TooManyPixels, match="1000000"):  # there is nothing to decode behind it
        read(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", b""))


def test_the_bound_itself_is_allowed() -> None:
    assert read(encoded(Image.new("L", (1000, 1000)), "PNG")).shape == (1000, 1000)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("size", [(1200, 1000), (2000, 2000)])
def test_too_many_pixels_in_each_format(kind: str, size: tuple[int, int]) -> None:
    with pytest.raises(TooManyPixels):
        read(encoded(Image.new("L", size), kind))


def test_bounds_hold_without_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(TooManyPixels):
        read(encoded(Image.new("L", (2000, 2000)), "PNG"))


def test_a_side_too_long() -> None:
    with pytest.raises(TooManyPixels, match="side"):
        read(encoded(Image.new("L", (70_000, 1)), "PNG"))


def test_a_tile_larger_than_its_picture() -> None:
    data = b"II\x2a\x00" + struct.pack("<I", 8)
    tags = [(256, 8), (257, 8), (258, 8), (259, 8), (262, 1), (277, 1)]
    tags += [(322, 32_768), (323, 32_768), (324, 200), (325, 100)]
    data += struct.pack("<H", len(tags))
    for tag, value in tags:
        data += struct.pack("<HHII", tag, 4, 1, value)
    data = data.ljust(200, b"\x00") + zlib.compress(bytes(1000)).ljust(100, b"\x00")
    with pytest.raises(TooManyPixels):
        read(data)


def test_a_long_run_length_bmp(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = b"\x08\x01\x00\x00" * 8 + b"\x00\x01"
    palette = bytes(range(256)) * 4
    header = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, len(rows), 0, 0, 256, 0)
    offset = 14 + len(header) + 1024
    data = b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + header + palette + rows
    assert read(data).shape == (8, 8)
    monkeypatch.setattr(module, "MAX_RUN_LENGTH_BYTES", 500)
    with pytest.raises(UnsupportedType, match="Run-length"):
        read(data)


def test_warnings_stay_inside() -> None:
    # Two frames are announced, in a chunk of the wrong length: Pillow warns and goes on.
    data = encoded(ramp(), "PNG")
    broken = data[:33] + _chunk(b"acTL", struct.pack(">II", 0, 0)) + data[33:]
    with warnings.catch_warnings(record=True) as caught:
        prepare_pillow(MAX_PIXELS)
        assert_close(read(broken), ramp(), 0)
    assert not caught


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
    ],
)
def test_mutated_files_are_read_or_refused(kind: str, options: dict[str, object]) -> None:
    rng = np.random.default_rng(abs(zlib.crc32(f"{kind}{options}".encode())))
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = kind in ("BMP", "GIF")
    sound = encoded(colours(), kind, **options, **({} if plain else {"exif": exif}))
    outcomes: set[type] = set()
    for _ in range(300):
        data = _mutated(sound, rng)
        try:
            picture = decode(data, SPEC, MAX_PIXELS)
        except ServiceError as error:
            outcomes.add(type(error))
        else:
            outcomes.add(type(picture))
            assert whole_picture(picture, SPEC).pixels.shape == (48, 48)
    assert BadImage in outcomes


def _mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Change bytes, mostly where the structure is; cut, or repeat a piece."""
    mutated = bytearray(data)
    head = len(mutated) if rng.random() < 0.5 else min(len(mutated), 200)
    for place in rng.integers(0, head, rng.integers(1, 8)):
        mutated[place] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))])
    if rng.random() < 0.2:
        del mutated[int(rng.integers(len(mutated))) :]
    if rng.random() < 0.2:
        start, size = rng.integers(0, max(1, len(mutated) - 1)), int(rng.integers(1, 64))
        mutated[start:start] = mutated[start : start + size]
    return bytes(mutated)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _file(data: bytes):  # type: ignore[no-untyped-def]
    from io import BytesIO

    return BytesIO(data)


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError("could not create decoder object"), ValueError("broken")]
)
def test_want_of_memory_is_not_the_clients_fault(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", failing)
    monkeypatch.setattr(np, "empty", exhausted)
    with pytest.raises(OutOfMemory) as caught:
        read(b"any")
    assert (caught.value.status, caught.value.retry_after_s) == (503, 1.0)
    assert "no memory for a picture" in caplog.text


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_under_a_limit_of_memory_every_format_says_so(kind: str) -> None:
    """In a process of its own, whose address space ends where the picture would begin."""
    program = """
import resource, sys
from pathlib import Path
from service.errors import ServiceError
from service.pictures.decode import decode
from service.pictures.search import FaceSearch
from training.model.manifest import InputSpec
data = sys.stdin.buffer.read()
used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 20), -1))
try:
    decode(data, InputSpec(), 10**8, FaceSearch("always"))
    print("read")
except ServiceError as error:
    print(error.code)
"""
    options = {"JPEG": {"progressive": True}, "WEBP": {"lossless": True}}
    data = encoded(Image.new("RGB", (4001, 3001)), kind, **options)
    done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True)
    assert done.stdout.split() == [b"out_of_memory"], done.stderr[-500:]


def test_strips_of_tiff_that_share_their_bytes() -> None:
    data = bytearray(encoded(ramp(64, 64), "TIFF", compression="tiff_lzw", strip_size=64 * 4))
    with Image.open(_file(bytes(data))) as image:
        counts = image.tag_v2[279]  # type: ignore[attr-defined]
    assert len(counts) == 16
    places = struct.pack("<16I", *counts), struct.pack("<16H", *counts)
    size = 4 if places[0] in data else 2
    at = data.index(places[0 if size == 4 else 1])
    data[at : at + 16 * size] = struct.pack("<16" + ("I" if size == 4 else "H"), *[len(data)] * 16)
    with pytest.raises(BadImage, match="several times"):
        read(bytes(data))
