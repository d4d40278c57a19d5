"""Tests of `training.model.grey`: every mode right, whole or in strips, in training and serving."""

import itertools
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.pictures.decode import decode
from service.pictures.faces import whole_picture
from tests.service.made_pictures import encoded, ramp
from training.model import grey as module
from training.model.grey import NotFiniteError, grey_levels, resized, upright_grey
from training.model.manifest import InputSpec
from training.pictures import read_face

WIDTH, HEIGHT = 96, 64
SPEC = InputSpec()


def levels(channels: int) -> np.ndarray:
    rng = np.random.default_rng(channels)
    return rng.integers(0, 256, (HEIGHT, WIDTH, channels), np.uint8)


def pictures() -> dict[str, tuple[Image.Image, str, dict[str, object]]]:
    """Return a picture of every mode that a file may have, its format, and how it is saved."""
    grey, rgb, rgba = ramp(WIDTH, HEIGHT), Image.fromarray(levels(3)), Image.fromarray(levels(4))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    wide = np.asarray(grey).astype(np.int32) * 1000 - 70_000
    palette = rgb.quantize(64)
    lab = Image.merge("LAB", rgb.split())
    return {
        "1": (grey.convert("1"), "PNG", {}),
        "L": (grey, "PNG", {}),
        "L with a transparent level": (grey, "PNG", {"transparency": 100}),
        "LA": (Image.merge("LA", rgb.split()[:2]), "PNG", {}),
        "P": (palette, "PNG", {}),
        "P of GIF": (palette, "GIF", {}),
        "P with a transparent colour": (palette, "GIF", {"transparency": 3}),
        "P with alpha": (palette, "PNG", {"transparency": bytes(range(0, 256, 4))}),
        "RGB": (rgb, "BMP", {}),
        "RGB with a transparent colour": (rgb, "PNG", {"transparency": rgb.getpixel((5, 5))}),
        "RGBA": (rgba, "PNG", {}),
        "RGBA of WebP": (rgba, "WEBP", {"lossless": True, "exact": True}),
        "RGB of WebP": (rgb, "WEBP", {"quality": 80}),
        "RGBA of TIFF": (rgba, "TIFF", {}),
        "CMYK": (rgb.convert("CMYK"), "TIFF", {}),
        "CMYK of JPEG": (rgb.convert("CMYK"), "JPEG", {"quality": 95}),
        "YCbCr": (rgb, "JPEG", {"quality": 95}),
        "YCbCr, progressive": (rgb, "JPEG", {"quality": 95, "progressive": True}),
        "LAB": (lab, "TIFF", {}),
        "I;16": (deep, "PNG", {}),
        "I;16 with a transparent level": (deep, "PNG", {"transparency": 100 * 257}),
        "I": (Image.fromarray(wide), "TIFF", {}),
        "F": (Image.fromarray(wide.astype(np.float32) / 3e3), "TIFF", {}),
    }


PICTURES = pictures()


@pytest.mark.parametrize("strip_pixels", [1, 5 * WIDTH + 1, 1 << 18])
@pytest.mark.parametrize("name", PICTURES)
def test_training_and_service_see_the_same(
    name: str, strip_pixels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, form, options = PICTURES[name]
    content = encoded(image, form, **options)
    path = tmp_path / "face"
    path.write_bytes(content)
    trained, _ = read_face(path, SPEC)
    whole = upright_grey(Image.open(BytesIO(content)))
    monkeypatch.setattr(module, "STRIP_PIXELS", strip_pixels)
    served = decode(content, SPEC, 10**6)
    assert np.array_equal(served.grey, whole)
    assert np.array_equal(whole_picture(served, SPEC).pixels, trained)
    assert whole.std() > 1  # it is a picture


@pytest.mark.parametrize(("form", "orientation"), [*itertools.product(["PNG", "TIFF"], range(10))])
def test_both_turn_a_picture_alike(form: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    content = encoded(ramp(WIDTH, HEIGHT), form, exif=exif)
    path = tmp_path / "face"
    path.write_bytes(content)
    served = decode(content, SPEC, 10**6)
    assert served.grey.shape == ((WIDTH, HEIGHT) if 5 <= orientation <= 8 else (HEIGHT, WIDTH))
    assert np.array_equal(upright_grey(Image.open(BytesIO(content))), served.grey)
    assert np.array_equal(read_face(path, SPEC)[0], whole_picture(served, SPEC).pixels)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_metadata_leaves_a_picture_as_it_lies_in_both() -> None:
    broken = b"Exif\x00\x00II*\x00\xff\xff\xff\xff"
    content = encoded(ramp(), "JPEG", quality=95, exif=broken)
    assert np.array_equal(
        upright_grey(Image.open(BytesIO(content))), decode(content, SPEC, 10**6).grey
    )


def test_premultiplied_grey_and_palettes_with_alpha() -> None:
    grey_alpha = Image.merge("LA", [ramp(), Image.new("L", ramp().size, 255)])
    assert np.array_equal(grey_levels(grey_alpha.convert("La")), np.asarray(ramp()))
    clear = Image.new("PA", (20, 20))
    assert grey_levels(clear).min() == 255


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, -1])
def test_numbers_that_are_not_finite(
    value: float, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.zeros((50, 50), np.float32)
    values[place, place] = value
    monkeypatch.setattr(module, "STRIP_PIXELS", 100)
    with pytest.raises(NotFiniteError):
        grey_levels(Image.fromarray(values))


def test_a_face_of_the_right_size_stays_as_it_is() -> None:
    face = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    assert np.array_equal(resized(face, SPEC), face)
