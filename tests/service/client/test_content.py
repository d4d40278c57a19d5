import io
import mmap
import pathlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from service.client.content import read_content
from training.model.grey import upright_grey

CONTENT = b"bytes of a file"


def opened(content: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(content))
    picture.load()
    return picture


class Fspath:
    """A path object of another library."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


@pytest.mark.parametrize("kind", [str, Path, pathlib.PurePath, Fspath])
def test_paths(tmp_path: Path, kind: Any) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(CONTENT)
    assert read_content(kind(file)) == CONTENT
    with pytest.raises(FileNotFoundError):
        read_content(kind(tmp_path / "none.jpg"))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_bytes_and_binary_files(kind: Any) -> None:
    content = read_content(kind(CONTENT))
    assert type(content) is bytes
    assert content == CONTENT


def test_a_part_of_bytes() -> None:
    assert read_content(memoryview(CONTENT)[::2]) == CONTENT[::2]


def test_open_files(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(CONTENT)
    with (tmp_path / "photo.jpg").open("rb") as file:
        file.read(6)
        assert read_content(file) == CONTENT[6:]  # from where it stands
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert read_content(mapped) == CONTENT  # type: ignore[arg-type]
    with tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(CONTENT)
        spooled.seek(0)
        assert read_content(spooled) == CONTENT  # type: ignore[arg-type]


@pytest.mark.parametrize("image", [None, 3, 1.5, [1, 2], {"image": b""}, object()])
def test_what_is_no_picture(image: Any) -> None:
    with pytest.raises(TypeError, match=f"not {type(image).__name__}"):
        read_content(image)


def test_a_file_of_text() -> None:
    with pytest.raises(TypeError, match="gives str, not bytes: open it with mode 'rb'"):
        read_content(io.StringIO("text"))  # type: ignore[arg-type]


MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
MODES += ["LAB", "I", "F", "I;16", "I;16B", "I;16L"]


@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_pillow_in_each_mode(mode: str) -> None:
    raw = bytes(range(256)) * 12
    size = {"1": (64, 48), "I": (24, 32), "F": (24, 32), "P": (64, 48), "L": (64, 48)}
    picture = Image.new(mode, (8, 6))
    if mode in size:
        picture = Image.frombytes("L", (64, 48), raw).convert(mode)
    elif not mode.startswith("I;16"):
        picture = Image.frombytes("RGBA", (24, 32), raw)
        for step in {"La": ("LA", "La"), "PA": ("P", "PA"), "LAB": ("RGB",)}.get(mode, (mode,)):
            picture = (
                picture.convert(step) if mode != "LAB" else Image.new("LAB", (8, 6), (90, 1, 1))
            )
    sent = opened(read_content(picture))
    assert sent.size == picture.size
    assert np.abs(upright_grey(sent).astype(int) - upright_grey(picture)).max() <= 1


def test_a_picture_of_pillow_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (40, 20), "red").save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as picture:
        sent = opened(read_content(picture))
    assert sent.size == (20, 40)
    assert sent.getexif().get(ExifTags.Base.Orientation) is None


@pytest.mark.parametrize(
    ("shape", "kind", "mode"),
    [
        ((6, 8), "uint8", "L"),
        ((6, 8, 1), "uint8", "L"),
        ((6, 8, 3), "uint8", "RGB"),
        ((6, 8, 4), "uint8", "RGBA"),
        ((6, 8), "<u2", "I;16"),
        ((6, 8), ">u2", "I;16B"),
    ],
)
def test_arrays(shape: tuple[int, ...], kind: str, mode: str) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape).astype(kind)
    array = np.flip(array, 1)  # as of a camera's mirrored frame: not contiguous
    sent = opened(read_content(array))
    assert (sent.size, sent.mode) == ((8, 6), mode)
    np.testing.assert_array_equal(np.asarray(sent), array.reshape(np.asarray(sent).shape))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((6, 8), np.float32),
        np.zeros((6, 8, 3), np.float64),
        np.zeros((6, 8), np.int64),
        np.zeros((6, 8), bool),
        np.zeros((3, 6, 8), np.uint8),
        np.zeros((1, 6, 8, 3), np.uint8),
        np.zeros((6, 8, 2), np.uint8),
        np.zeros((6, 8, 3), np.uint16),
        np.zeros((0, 8), np.uint8),
        np.zeros(8, np.uint8),
        np.array(3),
        np.array([None]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_that_are_no_pictures(array: Any) -> None:
    with pytest.raises(ValueError, match="an array of pixels is uint8") as caught:
        read_content(array)
    assert str(array.shape) in str(caught.value)
