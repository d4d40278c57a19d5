"""Tests of `service.pictures.cost`: what is small and dear is refused, what people send is not."""

import json
import math
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.config import Settings
from service.errors import TooManyPixels
from service.pictures.cost import Allowance, Cost
from service.pictures.decode import weigh
from service.pictures.search import NO_SEARCH, FaceSearch
from tests.service.hostile import multi_scan_jpeg
from tests.service.made_pictures import encoded, ramp
from training.model.manifest import InputSpec

SPEC = InputSpec()
MAX_PIXELS = 50_000_000
MAX_BYTES = Settings().max_decode_bytes
ALWAYS = FaceSearch("always")
WIDE, HIGH = 16383, 3051


def blank_png(width: int, height: int, depth: int, colour: int) -> bytes:
    """Return a PNG without a row of its picture, which costs as if it had them all."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pieces = ((b"IHDR", head), (b"PLTE", bytes(6)), (b"IDAT", zlib.compress(bytes(99))))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in pieces
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def run_length_bmp(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 2, 1, 1, 256, 0)
    start = 14 + len(header) + 1024
    return b"BM" + struct.pack("<IHHI", start + 2, 0, 0, start) + header + bytes(1026)


DEAR = {
    "WebP, lossless": encoded(Image.new("RGBA", (WIDE, HIGH)), "WEBP", lossless=True, method=0),
    "PNG, RGBA": blank_png(8000, 6000, 8, 6),
    "PNG, 16 bits": blank_png(8000, 6000, 16, 0),
    "GIF": encoded(Image.new("P", (8000, 6000)), "GIF"),
    "BMP, run-length": run_length_bmp(65535, 762),
    "TIFF, group 4": encoded(Image.new("1", (8000, 6000)), "TIFF", compression="group4"),
    **{
        f"JPEG, SOF{frame & 15}, {scans} scans": multi_scan_jpeg(frame, 8000, 6000, scans)
        for frame in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
        for scans in (20, 30_000)
    },
    "JPEG, SOF10 of one component": multi_scan_jpeg(0xCA, 8000, 6000, 5, components=1),
}


def admitted(data: bytes, search: FaceSearch = ALWAYS) -> Cost:
    """Weigh a picture that is a request's only one; raises where it is refused."""
    cost = weigh(data, SPEC, MAX_PIXELS, search)
    Allowance(len(data)).spend(cost)
    if cost.bytes > MAX_BYTES:
        raise TooManyPixels("memory")
    return cost


@pytest.mark.parametrize("search", [ALWAYS, NO_SEARCH], ids=["search", "no search"])
@pytest.mark.parametrize("name", DEAR)
def test_what_is_small_and_dear_is_refused(name: str, search: FaceSearch) -> None:
    assert len(DEAR[name]) < 310_000
    with pytest.raises(TooManyPixels):
        admitted(DEAR[name], search)


def jpeg_of(size: tuple[int, int], mebibytes: float, **options: object) -> bytes:
    """Return a JPEG's head for a picture of that size and weight; what it shows is not there."""
    data = bytearray(encoded(ramp(64, 64).convert("RGB"), "JPEG", **options))
    frame = data.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", size[1], size[0])
    return bytes(data) + bytes(int(mebibytes * 2**20))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(
    ("size", "mebibytes"), [((4000, 3000), 1), ((4032, 3024), 4), ((8160, 6120), 6)]
)
@pytest.mark.parametrize("search", [ALWAYS, NO_SEARCH], ids=["search", "no search"])
def test_jpegs_of_phones_pass(
    size: tuple[int, int], mebibytes: float, progressive: bool, subsampling: str, search: FaceSearch
) -> None:
    if progressive and subsampling == "4:4:4" and size[0] > 8000:
        pytest.skip("takes 300 MB, and no camera writes it")
    data = jpeg_of(size, mebibytes, progressive=progressive, subsampling=subsampling)
    cost = admitted(data, search)
    assert cost.light or progressive or size[0] > 8000 or search is ALWAYS


def test_a_jpeg_that_a_finer_look_decodes_again_counts_twice() -> None:
    data = jpeg_of((4000, 3000), 2)
    once = weigh(data, SPEC, MAX_PIXELS, FaceSearch("always", detail=1920))
    twice = weigh(data, SPEC, MAX_PIXELS, ALWAYS)
    assert twice.seconds > 1.8 * once.seconds
    assert twice.bytes > once.bytes
    small = jpeg_of((1024, 768), 0.1)
    assert weigh(small, SPEC, MAX_PIXELS, ALWAYS) == weigh(
        small, SPEC, MAX_PIXELS, FaceSearch("always", detail=1920)
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {"compress_level": 1}),
        ("WEBP", {"method": 0, "quality": 50}),
        ("WEBP", {"method": 0, "lossless": True, "quality": 0}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_other_pictures_of_twelve_megapixels_pass(
    kind: str, options: dict[str, object], mode: str
) -> None:
    data = encoded(Image.new(mode, (4032, 3024)), kind, **options)
    admitted(data)


def test_a_request_has_one_allowance_for_all_its_pictures() -> None:
    cost = Cost(1, 0.25)
    allowance = Allowance(3500)
    allowance.spend(cost)
    allowance.spend(cost)
    for _ in range(2):
        with pytest.raises(TooManyPixels, match="too long"):
            allowance.spend(cost)
    allowance.spend(Cost(1, 0.01))  # what is left is left for cheaper ones


def test_what_a_request_sends_adds_to_its_allowance() -> None:
    allowance = Allowance(20_000_000)
    for _ in range(5):
        allowance.spend(Cost(1, 3.9))
    with pytest.raises(TooManyPixels):
        Allowance(1 << 40).spend(Cost(1, 4.1))  # nobody may take so much
    with pytest.raises(TooManyPixels):
        Allowance(1 << 40).spend(Cost(1, math.inf))


MEASURE = """
import json, sys, time
from pathlib import Path
from service.pictures.decode import decode, prepare_pillow, weigh
from service.pictures.search import FaceSearch
from training.model.manifest import InputSpec
def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
prepare_pillow(50_000_000)
data, search = sys.stdin.buffer.read(), FaceSearch(sys.argv[1])
cost = weigh(data, InputSpec(), 50_000_000, search)
before, began = kilobytes("VmRSS"), time.process_time()
decode(data, InputSpec(), 50_000_000, search)
spent = time.process_time() - began
print(json.dumps([1024 * (kilobytes("VmHWM") - before), spent, cost.bytes, cost.seconds]))
"""


def noisy(mode: str, size: tuple[int, int] = (3001, 2003)) -> Image.Image:
    rng = np.random.default_rng(0)

    def channel() -> Image.Image:
        coarse = rng.integers(0, 256, (size[1] // 8, size[0] // 8), np.uint8)
        return Image.fromarray(coarse).resize(size)

    bands = Image.new(mode, (1, 1)).getbands()
    return Image.merge(mode, [channel() for _ in bands]) if len(bands) > 1 else channel()


def measured() -> dict[str, bytes]:
    rgb, rgba, grey = noisy("RGB"), noisy("RGBA"), noisy("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    palette = rgb.quantize(256)
    blank = Image.new("RGBA", (4000, 3000))
    png = {"compress_level": 1}
    lossless = {"lossless": True, "method": 0, "quality": 0}
    return {
        **{
            f"JPEG {subsampling} {progressive}": encoded(
                rgb, "JPEG", subsampling=subsampling, progressive=progressive
            )
            for subsampling in ("4:4:4", "4:2:0")
            for progressive in (False, True)
        },
        "JPEG CMYK": encoded(rgb.convert("CMYK"), "JPEG", progressive=True),
        "PNG 1": encoded(grey.convert("1"), "PNG", **png),
        "PNG L": encoded(grey, "PNG", **png),
        "PNG LA": encoded(noisy("LA"), "PNG", **png),
        "PNG P": encoded(palette, "PNG", transparency=0, **png),
        "PNG RGB": encoded(rgb, "PNG", **png),
        "PNG RGB with a transparent colour": encoded(rgb, "PNG", transparency=(0, 0, 0), **png),
        "PNG RGBA": encoded(rgba, "PNG", **png),
        "PNG RGBA blank": encoded(blank, "PNG"),
        "PNG 16": encoded(deep, "PNG", transparency=0, **png),
        "WebP lossy": encoded(rgb, "WEBP", method=0),
        "WebP lossy, alpha": encoded(rgba, "WEBP", method=0),
        "WebP lossless": encoded(rgb, "WEBP", **lossless),
        "WebP lossless, alpha": encoded(rgba, "WEBP", **lossless),
        "WebP blank": encoded(blank, "WEBP", lossless=True, exact=True),
        "GIF": encoded(palette, "GIF", transparency=0),
        "BMP": encoded(rgb, "BMP"),
        "BMP P": encoded(palette, "BMP"),
        "TIFF F": encoded(grey.convert("F"), "TIFF"),
        "TIFF I": encoded(grey.convert("I"), "TIFF"),
        "TIFF CMYK": encoded(rgb.convert("CMYK"), "TIFF"),
        "TIFF in one strip": encoded(
            rgba, "TIFF", compression="tiff_adobe_deflate", strip_size=1 << 30
        ),
        "TIFF F in one strip": encoded(
            grey.convert("F"), "TIFF", compression="tiff_lzw", strip_size=1 << 30
        ),
        **{
            f"TIFF {compression}": encoded(rgb, "TIFF", compression=compression)
            for compression in ("tiff_lzw", "packbits", "jpeg", "zstd", "lzma")
        },
        "TIFF group 4": encoded(grey.convert("1"), "TIFF", compression="group4"),
        **{
            f"JPEG of {scans} scans, SOF{frame & 15}": multi_scan_jpeg(frame, 2000, 1500, scans)
            for frame in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
            for scans in (3, 100)
        },
    }


@pytest.mark.slow
def test_pictures_take_no_more_than_was_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Each in a process of its own, whose memory it alone raises."""
    lines, above = [], []
    for name, data in measured().items():
        for search in ("always", "never"):
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, search],
                input=data,
                capture_output=True,
                check=True,
                cwd=Path(__file__).parents[3],
            )
            size, spent, most_bytes, most_s = json.loads(done.stdout)
            lines.append(
                f"{name:36} {search:7} {size / 1e6:5.0f} of {most_bytes / 1e6:5.0f} MB, "
                f"{1e3 * spent:5.0f} of {1e3 * most_s:5.0f} ms"
            )
            # A neighbour on the same core makes one slower.
            if size > most_bytes or spent > 2 * most_s:
                above.append(lines[-1])
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
    assert above == []
