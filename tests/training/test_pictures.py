from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from service.pictures.decode import decode
from training.model.manifest import InputSpec
from training.pictures import read_face, resize, to_grey
from training.samples import DataError

SPEC = InputSpec()


def portrait() -> Image.Image:
    return Image.fromarray(astronaut()).crop((150, 0, 350, 240))


def pictures() -> dict[str, tuple[Image.Image, str]]:
    colour = portrait()
    grey = colour.convert("L")
    cutout = colour.copy()
    mask = Image.new("L", colour.size, 255)
    mask.paste(0, (0, 0, 200, 40))
    cutout.putalpha(mask)
    palette = colour.quantize(16)
    palette.info["transparency"] = 3
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 256 + 17)
    floats = Image.fromarray(np.asarray(grey).astype(np.float32) / 100 - 1)
    return {
        "grey png": (grey, "PNG"),
        "grey jpeg": (grey, "JPEG"),
        "colour jpeg": (colour, "JPEG"),
        "colour webp": (colour, "WEBP"),
        "colour bmp": (colour, "BMP"),
        "bilevel": (colour.convert("1"), "PNG"),
        "transparent": (cutout, "PNG"),
        "transparent grey": (cutout.convert("LA"), "PNG"),
        "palette": (palette, "PNG"),
        "palette gif": (colour.quantize(16), "GIF"),
        "cmyk": (colour.convert("CMYK"), "JPEG"),
        "cmyk tiff": (colour.convert("CMYK"), "TIFF"),
        "16 bits": (deep, "PNG"),
        "16 bits tiff": (deep, "TIFF"),
        "floats": (floats, "TIFF"),
    }


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("name", pictures())
def test_training_and_service_see_the_same(name: str) -> None:
    content = encode(*pictures()[name])
    served = decode(content, InputSpec(height=200, width=200), 10**6).grey
    trained = np.asarray(to_grey(Image.open(BytesIO(content))))
    assert np.array_equal(trained, served)
    # And it is the portrait, not noise, white or black.
    ours = trained[60:, 60:140].astype(float).ravel()
    truth = np.asarray(portrait().convert("L"))[60:, 60:140].astype(float).ravel()
    assert np.corrcoef(ours, truth)[0, 1] > 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_obeyed_as_in_the_service(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    content = encode(portrait(), "PNG", exif=exif)
    trained = np.asarray(to_grey(Image.open(BytesIO(content))))
    assert trained.shape == ((200, 240) if orientation > 4 else (240, 200))
    assert np.array_equal(trained, decode(content, SPEC, 10**6).grey)


def test_what_is_transparent_is_white() -> None:
    clear = Image.new("RGBA", (20, 20), (10, 20, 30, 0))
    assert np.asarray(to_grey(clear)).min() == 255


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
def test_a_face_has_the_size_and_filter_of_the_spec(tmp_path: Path, resample: str) -> None:
    spec = InputSpec(height=40, width=32, resample=resample)
    path = tmp_path / "face.png"
    portrait().save(path)
    face, content = read_face(path, spec)
    assert (face.shape, face.dtype) == ((40, 32), np.uint8)
    assert content == path.read_bytes()
    expected = portrait().convert("L").resize((32, 40), Image.Resampling[resample.upper()])
    assert np.array_equal(face, np.asarray(expected))


def test_a_face_of_the_right_size_stays_as_it_is() -> None:
    face = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    assert np.array_equal(resize(face, SPEC), face)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_a_cut_off_picture_is_named(tmp_path: Path, form: str) -> None:
    path = tmp_path / "cut.bin"
    content = encode(portrait(), form)
    for length in (0, 5, len(content) // 2):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"cut\.bin: not a whole picture"):
            read_face(path, SPEC)


def test_other_files_and_missing_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a picture")
    with pytest.raises(DataError, match=r"notes\.txt: not a whole picture"):
        read_face(path, SPEC)
    with pytest.raises(DataError, match=r"gone\.png: cannot be opened"):
        read_face(tmp_path / "gone.png", SPEC)
