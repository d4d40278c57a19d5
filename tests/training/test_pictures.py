from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from service.pictures.search import FaceSearch
from training.model.manifest import InputSpec
from training.pictures import is_crop, read_face
from training.samples import DataError

SPEC = InputSpec()


def portrait() -> Image.Image:
    return Image.fromarray(astronaut()).crop((150, 0, 350, 240))


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
def test_a_face_has_the_size_and_filter_of_the_spec(tmp_path: Path, resample: Any) -> None:
    spec = InputSpec(height=40, width=32, resample=resample)
    path = tmp_path / "face.png"
    portrait().save(path)
    face, content = read_face(path, spec)
    assert face.shape == (40, 32)
    assert face.dtype == np.uint8
    assert content == path.read_bytes()
    expected = portrait().convert("L").resize((32, 40), Image.Resampling[resample.upper()])
    assert np.array_equal(face, np.asarray(expected))


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


@pytest.mark.parametrize(
    "size", [(48, 48), (112, 112), (113, 113), (100, 80), (100, 79), (79, 100), (10, 300)]
)
def test_a_crop_is_what_the_service_takes_for_one(size: tuple[int, int]) -> None:
    picture = Image.new("L", size)
    assert is_crop(encode(picture, "PNG")) != FaceSearch().looks_in(*size)
