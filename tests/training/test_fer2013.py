import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.training.synthetic import PIXELS, face_text, fer2013_rows, noise, write_fer2013
from training.fer2013 import read
from training.model.labels import FER2013_EMOTIONS
from training.samples import DataError

LABELS = [*range(7)] * 4
PARTS = [0] * 14 + [1] * 7 + [2] * 7


def test_reads_faces_labels_and_parts_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write_fer2013(tmp_path / "fer2013.csv")
    samples = read(path)
    assert samples.faces.dtype == np.uint8
    assert np.array_equal(samples.faces, noise(28))
    assert samples.labels.tolist() == LABELS
    assert samples.parts.tolist() == PARTS
    assert samples.emotions == FER2013_EMOTIONS
    assert samples.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("emotion, Usage, pixels\n", "{0},{2},{1}\n"),
        ("emotion, Usage, pixels\r\n", "{0}, {2}, {1}\r\n"),
        ("\ufeffemotion,pixels,Usage\n", '"{0}","{1}","{2}"\n'),
        ("Usage,emotion,pixels\n", "{2},{0},{1}\n\n"),
    ],
)
def test_finds_columns_by_their_names(tmp_path: Path, header: str, form: str) -> None:
    path = tmp_path / "icml_face_data.csv"
    text = header + "".join(form.format(*row) for row in fer2013_rows())
    path.write_bytes(text.encode())
    samples = read(path)
    assert np.array_equal(samples.faces, noise(28))
    assert samples.labels.tolist() == LABELS
    assert samples.parts.tolist() == PARTS


GOOD = face_text(noise(1)[0])
SHORT = GOOD.rsplit(" ", 1)[0]
REST = " 7" * (PIXELS - 2)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"0,{GOOD}", "2 fields, expected 3"),
        (f"0,{GOOD},Training,x", "4 fields, expected 3"),
        (f"7,{GOOD},Training", "emotion is '7', expected 0 to 6"),
        (f",{GOOD},Training", "emotion is '', expected 0 to 6"),
        (f"0,{GOOD},Test", "Usage is 'Test', expected Training, PublicTest, PrivateTest"),
        (f"0,{SHORT},Training", "2303 pixels, expected 2304"),
        (f"0,{GOOD} 1,Training", "2305 pixels, expected 2304"),
        ("0,,Training", "0 pixels, expected 2304"),
        (f"0,1 256{REST},Training", "pixel 2 is '256', expected 0 to 255"),
        (f"0,1 -1{REST},Training", "pixel 2 is '-1', expected 0 to 255"),
        (f"0,1 2.5{REST},Training", "pixel 2 is '2.5', expected 0 to 255"),
        (f"0,1 x{REST},Training", "pixel 2 is 'x', expected 0 to 255"),
        # 2**64 + 1 must not wrap into range.
        (f"0,1 18446744073709551617{REST},Training", "pixel 2 is '18446744073709551617'"),
    ],
)
def test_names_file_row_and_fault(tmp_path: Path, row: str, message: str) -> None:
    path = write_fer2013(tmp_path / "fer2013.csv", fer2013_rows()[:3])
    with path.open("a") as file:
        file.write(row + "\n")
    with pytest.raises(DataError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, row 5: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"emotion,pixels\n", b"a,b,c\n1,2,3\n", b"\x89PNG\r\n"])
def test_refuses_other_files_by_their_header(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"other\.csv, row 1: .* expected FER2013's"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.csv: cannot be opened"):
        read(tmp_path / "missing.csv")


def test_progress_goes_up_to_the_file_size(tmp_path: Path) -> None:
    rows = [("0", " ".join(["1"] * PIXELS), "Training")] * 1100
    path = write_fer2013(tmp_path / "fer2013.csv", rows)
    seen: list[tuple[int, int]] = []
    read(path, lambda done, total: seen.append((done, total)))
    size = path.stat().st_size
    assert [total for _, total in seen] == [size] * 2
    assert 0 < seen[0][0] < seen[1][0] < size
