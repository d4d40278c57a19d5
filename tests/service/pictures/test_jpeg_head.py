"""Tests of `service.pictures.jpeg_head`: every scan that a decoder would make is counted."""

import math
import struct

import pytest
from PIL import Image

from service.pictures.jpeg_head import read_jpeg_head
from tests.service.hostile import multi_scan_jpeg
from tests.service.made_pictures import encoded, ramp

FRAMES = [0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF]


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


@pytest.mark.parametrize("scans", [1, 7, 300])
@pytest.mark.parametrize("frame", FRAMES)
def test_scans_of_every_kind_of_frame(frame: int, scans: int) -> None:
    head = read_jpeg_head(multi_scan_jpeg(frame, 161, 79, scans))
    assert head is not None
    assert (head.samples, head.scans, head.buffered) == (3 * 176 * 80, scans, True)
    assert head.arithmetic == (frame > 0xC8)


@pytest.mark.parametrize(
    ("options", "share", "buffered"),
    [
        ({"subsampling": "4:4:4"}, 3, False),
        ({"subsampling": "4:2:2"}, 2, False),
        ({"subsampling": "4:2:0"}, 1.5, False),
        ({"subsampling": "4:2:0", "progressive": True}, 1.5, True),
    ],
)
def test_what_encoders_write(options: dict[str, object], share: float, buffered: bool) -> None:
    data = encoded(Image.effect_noise((160, 80), 90).convert("RGB"), "JPEG", **options)
    head = read_jpeg_head(data)
    assert head is not None
    assert (head.samples, head.buffered) == (share * 160 * 80, buffered)
    assert head.scans == data.count(b"\xff\xda")
    assert (head.scans > 1) == buffered


def test_neither_thumbnails_nor_what_follows_the_picture_count() -> None:
    data = encoded(ramp(), "JPEG")
    thumbnail = segment(0xE1, b"Exif\0\0" + 5 * data)
    head = read_jpeg_head(data[:2] + thumbnail + data[2:] + 1000 * b"\xff\xda\x00\x00")
    assert head is not None
    assert head.scans == 1


def test_scans_hide_nowhere() -> None:
    data = multi_scan_jpeg(0xC2, 64, 64, 2)
    scan = data[data.index(b"\xff\xda") : -2]
    hidden = [
        b"\xff" * 9 + scan[1:],  # fill bytes
        b"\xff\xd0\xff\x00" + scan,  # restarts and stuffed bytes
        b"\xff\x02\x40\x00" + scan,  # no decoder passes over a reserved segment by its length
        b"\xff\x01" + scan,
        b"\xff\xd8" + scan,
        b"\xff\xc0\x00\x01" + scan,  # of no length
    ]
    for piece in hidden:
        head = read_jpeg_head(data[:-2] + piece + data[-2:])
        assert head is not None
        assert head.scans >= 4, piece[:8]


def test_a_file_of_endless_markers_has_endless_scans() -> None:
    head = read_jpeg_head(b"\xff\xd8" + b"\xff\xfe\x00\x02" * 100_000)
    assert head is not None
    assert head.scans == math.inf


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff\xd9", b"\x89PNG" * 9])
def test_no_head(data: bytes) -> None:
    assert read_jpeg_head(data) is None


def test_every_cut_is_borne() -> None:
    data = multi_scan_jpeg(0xC2, 64, 64, 5)
    heads = [read_jpeg_head(data[:end]) for end in range(len(data))]
    scans = [head.scans for head in heads if head is not None]
    assert scans == sorted(scans)
    assert scans[-1] == 5
