"""The text of answers, without a service."""

import csv
import io
from pathlib import Path

import pytest

from service.client.answers import Box, Face, Prediction
from service.client.formats import Outcome, choose_format, shown

FACE = Face(
    Box(40, 5, 30, 31),
    0.9,
    "fear",
    0.7,
    {"fear": 0.7, "anger": 0.3},
    {"left_eye": (47.5, 14.0), "right_eye": (60.0, 14.5)},
    12.5,
    {"size": 31.0, "sharpness": 0.2, "brightness": 0.5, "usable": True},
)
TRUNCATED = Prediction((FACE,), 100, 80, {}, {}, faces_found=5, truncated=True)


def rows(outcome: Outcome) -> list[dict[str, str]]:
    form = choose_format("csv", [outcome.file])
    return list(csv.DictReader(io.StringIO(f"{form.head}\n{form.write(outcome)}\n")))


def test_csv_has_what_is_known_of_a_face() -> None:
    (row,) = rows(Outcome(Path("a.jpg"), TRUNCATED))
    assert (row["faces"], row["faces_found"], row["truncated"]) == ("1", "5", "True")
    assert (row["roll"], row["size"], row["usable"]) == ("12.5", "31.0", "True")
    assert (row["left_eye_x"], row["right_eye_y"], row["nose_x"]) == ("47.5", "14.5", "")


@pytest.mark.parametrize("answer", ["bad", Prediction((), 9, 9, {}, {}, faces_found=0)])
def test_csv_without_a_face_is_one_row(answer: Prediction | str) -> None:
    (row,) = rows(Outcome(Path("a.jpg"), answer))
    assert None not in row  # as many cells as columns
    assert (row["file"], row["face"], row["roll"]) == ("a.jpg", "", "")


def test_a_table_says_that_faces_may_be_missing() -> None:
    write = choose_format("table", [Path("a.jpg")]).write
    lines = write(Outcome(Path("a.jpg"), TRUNCATED)).splitlines()
    assert lines == [
        "a.jpg  fear            0.700  40,5 30x31",
        "a.jpg  there may be more faces; 5 were found",
    ]


SAD = Face(Box(3, 4, 50, 60), 0.9, "sadness", 0.7, {"sadness": 0.7})
WHOLE = Face(Box(0, 0, 9, 9), None, "happiness", 0.98765, {"happiness": 0.98765})


def answer(*faces: Face) -> Prediction:
    return Prediction(faces, 99, 88, {}, {})


def test_a_table_is_aligned() -> None:
    files = [Path("holiday/long-name.jpg"), Path("b.png"), Path("表情.png"), Path("gone.png")]
    table = choose_format("table", files)
    answers: list[Prediction | str]
    answers = [answer(SAD, SAD), answer(WHOLE), answer(), "cannot be read: No such file"]
    lines = [table.head]
    lines += [table.write(Outcome(*one)) for one in zip(files, answers, strict=True)]
    assert "\n".join(lines).splitlines() == [
        "file                   emotion    confidence  box",
        "holiday/long-name.jpg  sadness         0.700  3,4 50x60",
        "holiday/long-name.jpg  sadness         0.700  3,4 50x60",
        "b.png                  happiness       0.988",
        "表情.png               no face",
        "gone.png               cannot be read: No such file",
    ]


def test_one_long_name_does_not_widen_the_table() -> None:
    files = [Path("a.png"), Path("n" * 200)]
    table = choose_format("table", files)
    assert table.head.startswith("file   emotion")
    assert table.write(Outcome(files[1], answer())) == "n" * 200 + "  no face"


def test_nothing_that_a_terminal_would_obey() -> None:
    file = Path("two\nlines\x1b[2J\udcff.png")
    table = choose_format("table", [file])
    line = table.write(Outcome(file, "said\x07\r\nmore"))
    assert line == "two\\nlines\\x1b[2J\\udcff.png  said\\x07\\r\\nmore"
    assert shown("Grüße, 表情") == "Grüße, 表情"
