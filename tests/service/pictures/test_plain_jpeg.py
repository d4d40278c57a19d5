"""Tests of `service.pictures.plain_jpeg`: what it takes, and that it changes no picture."""

import itertools
import random
import struct

import numpy as np
import pytest
from PIL import Image

from service.errors import ServiceError, TooManyPixels
from service.pictures import plain_jpeg as module
from service.pictures.decode import Picture, decode
from service.pictures.plain_jpeg import PlainJpeg, read_plain, recognise_plain
from service.pictures.search import NO_SEARCH, FaceSearch
from tests.service.hostile import spoiled
from tests.service.made_pictures import encoded, ramp
from training.model.manifest import InputSpec

SPEC = InputSpec()
MAX_PIXELS = 2_000_000
pytest.importorskip("simplejpeg", reason="simplejpeg is not installed")


def coloured(width: int = 96, height: int = 64) -> Image.Image:
    """Return a picture with edges in each channel, so that subsampling shows."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = (columns * 255 // width, rows * 255 // height, (columns // 5 + rows // 3) % 2 * 255)
    return Image.fromarray(np.stack(planes, axis=2).astype(np.uint8))


def by_pillow(data: bytes, monkeypatch: pytest.MonkeyPatch, search: FaceSearch) -> Picture:
    with monkeypatch.context() as patch:
        patch.setattr(module, "decode_jpeg", None)
        return decode(data, SPEC, MAX_PIXELS, search)


def with_segment(data: bytes, marker: int, content: bytes) -> bytes:
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + data[2:]


@pytest.mark.parametrize(
    ("size", "options", "mode"),
    [
        *itertools.product(
            [(1, 1), (47, 49), (48, 48), (191, 192), (384, 400), (1002, 1000), (1920, 800)],
            [{}, {"subsampling": "4:4:4", "quality": 95}, {"subsampling": "4:2:2"}],
            ["RGB", "L"],
        ),
        ((192, 192), {"restart_marker_blocks": 3}, "RGB"),
        ((192, 192), {"optimize": True, "quality": 1}, "RGB"),
        ((192, 192), {"comment": "a word", "icc_profile": b"unread" * 9}, "RGB"),
    ],
)
@pytest.mark.parametrize("search", [NO_SEARCH, FaceSearch("always")], ids=["grey", "colour"])
def test_pixels_are_those_of_pillow(
    size: tuple[int, int],
    options: dict[str, object],
    mode: str,
    search: FaceSearch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encoded(coloured(*size).convert(mode), "JPEG", **options)
    assert recognise_plain(data) == PlainJpeg(*size, grey=mode == "L")
    expected = by_pillow(data, monkeypatch, search)
    monkeypatch.setattr(Image, "open", None)  # Pillow does not open it
    actual = decode(data, SPEC, MAX_PIXELS, search)
    assert (actual.width, actual.height) == (expected.width, expected.height)
    # Both carry libjpeg-turbo, of versions that may differ by a level some day.
    assert np.abs(actual.grey.astype(int) - expected.grey).max() <= 1
    assert (actual.colour is None) == (expected.colour is None)
    if actual.colour is not None:
        difference = np.abs(np.asarray(actual.colour, int) - np.asarray(expected.colour, int))
        assert difference.max() <= 1


def orientation(turned: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = turned
    return exif


@pytest.mark.parametrize(
    "data",
    [
        encoded(ramp(), "JPEG", progressive=True),
        encoded(ramp(), "JPEG", exif=orientation(6)),
        encoded(Image.new("CMYK", (64, 64)), "JPEG"),
        encoded(ramp(), "PNG"),
        2 * encoded(ramp(), "JPEG"),
        with_segment(encoded(coloured(), "JPEG"), 0xEE, b"Adobe\x00\x64\x00\x00\x00\x00\x00"),
    ],
    ids=["progressive", "EXIF", "CMYK", "PNG", "two in one", "Adobe"],
)
def test_what_is_not_plain_is_left_to_pillow(data: bytes) -> None:
    assert recognise_plain(data) is None
    assert decode(data, SPEC, MAX_PIXELS).grey.size > 0


def test_every_cut_of_a_head_is_borne() -> None:
    data = encoded(coloured(), "JPEG")
    start = data.index(b"\xff\xda")
    assert [recognise_plain(data[:end]) for end in range(start)] == [None] * start


def test_a_head_of_many_segments_is_given_up() -> None:
    data = encoded(ramp(), "JPEG")
    for _ in range(100):
        data = with_segment(data, 0xFE, b"")
    assert recognise_plain(data) is None
    assert decode(data, SPEC, MAX_PIXELS).grey.shape == (64, 96)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_cut_file_is_left_to_pillow(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(coloured(), "JPEG")
    data = whole[: int(len(whole) * share)]
    assert recognise_plain(data) is not None
    assert read_plain(data, "RGB", 96, 64) is None
    picture = decode(data, SPEC, MAX_PIXELS)
    assert picture.cut
    np.testing.assert_array_equal(picture.grey, by_pillow(data, monkeypatch, NO_SEARCH).grey)


def test_what_pillow_forgives_is_forgiven(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bytearray(encoded(coloured(), "JPEG", restart_marker_blocks=2))
    at = whole.index(b"\xff\xd1")
    whole[at : at + 2] = b"\xff\xd5"  # restart markers out of order: libjpeg warns and goes on
    data = bytes(whole)
    assert read_plain(data, "RGB", 96, 64) is None
    picture = decode(data, SPEC, MAX_PIXELS)
    np.testing.assert_array_equal(picture.grey, by_pillow(data, monkeypatch, NO_SEARCH).grey)


def outcome(data: bytes, search: FaceSearch) -> np.ndarray | str:
    try:
        return decode(data, SPEC, MAX_PIXELS, search).grey
    except ServiceError as error:
        return error.code


def test_spoiled_files_end_as_they_do_by_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = itertools.product((48, 200), ("RGB", "L"))
    files = [encoded(coloured(side, side).convert(mode), "JPEG") for side, mode in ways]
    chance = random.Random(0)
    plain = pictures = 0
    for number in range(400):
        data = spoiled(chance.choice(files), files, chance)
        search = FaceSearch("always") if number % 2 else NO_SEARCH
        plain += recognise_plain(data) is not None
        actual = outcome(data, search)
        with monkeypatch.context() as patch:
            patch.setattr(module, "decode_jpeg", None)
            expected = outcome(data, search)
        if isinstance(actual, str) or isinstance(expected, str):
            # Too large and broken at once may be called either.
            assert isinstance(actual, str)
            assert isinstance(expected, str)
            assert actual in (expected, "too_many_pixels")
            continue
        pictures += 1
        assert np.abs(actual.astype(int) - expected).max() <= 1
    assert plain > 50
    assert pictures > 50


@pytest.mark.parametrize(
    ("width", "height", "message"),
    [(65_000, 65_000, "more than 2000000 pixels"), (65_535, 31, "more than")],
)
def test_sizes_are_refused_before_decoding(
    width: int, height: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(encoded(ramp(), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)

    def unwanted(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(module, "decode_jpeg", unwanted)
    with pytest.raises(TooManyPixels, match=message):
        decode(bytes(data), SPEC, MAX_PIXELS)


@pytest.mark.parametrize("place", ["rows", "columns", "bits", "components"])
def test_impossible_frames_are_left_to_pillow(place: str) -> None:
    data = bytearray(encoded(ramp(), "JPEG"))
    at = data.index(b"\xff\xc0")
    first, content = {
        "bits": (4, b"\x0c"),
        "rows": (5, b"\0\0"),
        "columns": (7, b"\0\0"),
        "components": (9, b"\x02"),
    }[place]
    data[at + first : at + first + len(content)] = content
    assert recognise_plain(bytes(data)) is None
    with pytest.raises(ServiceError):
        decode(bytes(data), SPEC, MAX_PIXELS)


@pytest.mark.parametrize("container", [bytes, bytearray])
def test_either_buffer_is_read(container: type) -> None:
    data = container(encoded(ramp(), "JPEG"))
    assert recognise_plain(data) == PlainJpeg(96, 64, grey=True)
    pixels = read_plain(data, "L", 96, 64)
    assert pixels is not None
    assert pixels.flags["WRITEABLE"]


def test_without_simplejpeg_all_is_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "decode_jpeg", None)
    data = encoded(ramp(), "JPEG")
    assert recognise_plain(data) is None
    assert decode(data, SPEC, MAX_PIXELS).grey.shape == (64, 96)
