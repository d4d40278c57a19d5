"""The text of answers, without a service."""

import csv
import io
from pathlib import Path

import pytest

from service.client.answers import Box, Face, Prediction
from service.client.formats import FORMATS, Outcome

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
    form = FORMATS["csv"]
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
    write = FORMATS["table"].write
    lines = write(Outcome(Path("a.jpg"), TRUNCATED)).splitlines()
    assert lines == [
        "a.jpg: fear 0.700 at 40,5 30x31",
        "a.jpg: there may be more faces; 5 were found",
    ]
