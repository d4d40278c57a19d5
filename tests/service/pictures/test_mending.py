"""Tests of `service.pictures.mending`, and of what `decode` makes of slightly broken files."""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from service.errors import BadImage
from service.pictures.decode import Picture, decode, weigh
from service.pictures.mending import complete_jpeg, is_cut_jpeg, strip_png
from service.pictures.search import FaceSearch
from tests.service.made_pictures import encoded, ramp
from training.model.manifest import InputSpec

SPEC = InputSpec()
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read(data: bytes | bytearray) -> Picture:
    weigh(data, SPEC, 10**6)
    return decode(data, SPEC, 10**6)


JPEGS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "a thumbnail in its head": {"exif": Image.Exif().tobytes() + b"\xff\xd8\xff\xda\xff\xd9"},
}


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("missing", [1, 2, 3, 40])
def test_a_cut_jpeg_is_read_as_far_as_it_goes(kind: str, missing: int) -> None:
    whole = encoded(ramp(256, 192), "JPEG", quality=95, **JPEGS[kind])
    picture = read(whole[:-missing])
    assert picture.cut
    assert not read(whole).cut
    rows = 192 if missing < 3 else 120
    there = np.abs(picture.grey[:rows].astype(int) - read(whole).grey[:rows])
    assert there.mean() < (0.1 if missing < 3 else 6)


def test_a_cut_jpeg_is_searched_too() -> None:
    picture = decode(
        encoded(ramp(512, 384), "JPEG")[:-200], SPEC, 10**6, FaceSearch(detect="always")
    )
    assert picture.cut
    assert picture.colour is not None


@pytest.mark.parametrize("after", [b"", b"\x00" * 100, b"trailing text"])
def test_what_follows_the_end_is_no_cut(after: bytes) -> None:
    data = encoded(ramp(), "JPEG") + after
    assert not is_cut_jpeg(data)
    assert not read(data).cut


def test_a_jpeg_without_pixels_is_damaged() -> None:
    head = encoded(ramp(), "JPEG")[:200]
    assert not is_cut_jpeg(head)
    with pytest.raises(BadImage):
        read(head)


@pytest.mark.parametrize("end", [b"", b"\xff", b"\xff\xff"])
def test_a_lone_marker_byte_at_the_cut_does_not_spoil_the_end(end: bytes) -> None:
    data = encoded(ramp(256, 192), "JPEG")[:-9].rstrip(b"\xff") + end
    assert complete_jpeg(data).endswith(data.rstrip(b"\xff")[-1:] + b"\xff\xd9")
    assert read(data).cut


def chunk(name: bytes, content: bytes, sound: bool = True) -> bytes:
    check = zlib.crc32(name + content) ^ (not sound)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def with_chunk(extra: bytes, **options: object) -> bytes:
    data = encoded(ramp(), "PNG", **options)
    after_head = len(PNG_SIGNATURE) + 25
    return data[:after_head] + extra + data[after_head:]


BOMB = zlib.compress(b"x" * (4 << 20))


@pytest.mark.parametrize(
    "extra",
    [
        *(
            chunk(name, b"\x00\x00\x00\x01", sound=False)
            for name in (b"tEXt", b"iCCP", b"gAMA", b"sRGB", b"tIME", b"eXIf", b"prIv", b"pHYs")
        ),
        chunk(b"gAMA", b""),
        chunk(b"sRGB", b""),
        chunk(b"pHYs", b"\x00"),
        chunk(b"iCCP", b"name"),
        chunk(b"iCCP", b"name\x00\x07broken"),
        chunk(b"iTXt", b"\x00"),
        chunk(b"zTXt", b"key\x00\x00" + BOMB),
        chunk(b"iCCP", b"name\x00\x00" + BOMB),
        chunk(b"cHRM", b"\x00" * 5),
        chunk(b"acTL", b"\x00"),
    ],
)
def test_what_stands_beside_the_pixels_of_a_png_cannot_spoil_them(extra: bytes) -> None:
    picture = read(with_chunk(extra))
    np.testing.assert_array_equal(picture.grey, np.asarray(ramp()))
    assert not picture.cut


def test_sound_transparency_and_orientation_are_kept() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    picture = Image.new("P", (60, 40), 1)
    picture.putpalette([0, 0, 0, 9, 9, 9])
    picture.paste(0, (0, 0, 30, 40))
    data = encoded(picture, "PNG", transparency=0, exif=exif)
    broken = data[:33] + chunk(b"tEXt", b"a", sound=False) + data[33:]
    np.testing.assert_array_equal(read(broken).grey, read(data).grey)
    assert read(broken).grey[0, -1] == 255


@pytest.mark.parametrize("name", [b"IHDR", b"IDAT"])
def test_pixels_that_are_broken_are_damaged(name: bytes) -> None:
    data = bytearray(encoded(ramp(), "PNG"))
    data[data.find(name) + 6] ^= 0xFF
    with pytest.raises(BadImage):
        read(data)


def test_there_is_nothing_to_leave_out_of_a_plain_png() -> None:
    assert strip_png(encoded(ramp(), "PNG")) is None
    assert strip_png(b"GIF89a") is None
    assert strip_png(PNG_SIGNATURE + b"\xff" * 40) == PNG_SIGNATURE


def test_many_chunks_are_not_followed_for_ever() -> None:
    many = with_chunk(chunk(b"tEXt", b"a", sound=False) * 100_000)
    with pytest.raises(BadImage):
        read(many)


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    b'syntax-ns#"><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    b'tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_in_xmp_alone_is_not_obeyed(kind: str) -> None:
    options: dict[str, object] = {"xmp": XMP}
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options = {"pnginfo": info}
    data = encoded(ramp(), kind, **options)
    assert read(data).grey.shape == (64, 96)


def test_an_orientation_in_a_text_of_a_png_is_not_obeyed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    info = PngImagePlugin.PngInfo()
    block = exif.tobytes()
    info.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n")
    file = BytesIO()
    ramp().save(file, "PNG", pnginfo=info)
    assert read(file.getvalue()).grey.shape == (64, 96)
