from pathlib import Path

import numpy as np
import pytest

from tests.training.synthetic import write_ferplus
from training.ferplus import Votes, read_votes
from training.model.labels import FERPLUS_EMOTIONS
from training.samples import DataError

CSV = Path("fer2013.csv")


def read_counts(tmp_path: Path, *counts: dict[str, int]) -> Votes:
    path = write_ferplus(tmp_path / "votes.csv", [("Training", c) for c in counts])
    return read_votes(path, CSV, np.zeros(len(counts), np.uint8))


def test_targets_are_shares_of_the_votes_in_our_order(tmp_path: Path) -> None:
    votes = read_counts(tmp_path, {"neutral": 4, "sadness": 1, "anger": 3, "contempt": 2})
    expected = dict.fromkeys(FERPLUS_EMOTIONS, 0.0) | {
        "neutral": 4 / 9,  # the lone vote for sadness is an outlier
        "anger": 3 / 9,
        "contempt": 2 / 9,
    }
    assert votes.soft.dtype == np.float32
    assert dict(zip(FERPLUS_EMOTIONS, votes.soft[0].tolist(), strict=True)) == pytest.approx(
        expected
    )


@pytest.mark.parametrize("emotion", FERPLUS_EMOTIONS)
def test_each_emotion_gets_its_own_label(tmp_path: Path, emotion: str) -> None:
    votes = read_counts(tmp_path, {emotion: 10})
    assert FERPLUS_EMOTIONS[votes.labels[0]] == emotion
    assert votes.soft[0].tolist() == [float(e == emotion) for e in FERPLUS_EMOTIONS]


def test_a_tie_goes_to_the_first_in_the_published_order(tmp_path: Path) -> None:
    votes = read_counts(tmp_path, {"anger": 5, "neutral": 5}, {"fear": 5, "anger": 5})
    assert [FERPLUS_EMOTIONS[label] for label in votes.labels] == ["neutral", "anger"]


@pytest.mark.parametrize(
    ("counts", "trainable", "scored", "majority"),
    [
        ({"happiness": 10}, True, True, True),
        ({"fear": 4, "unknown": 4, "sadness": 2}, True, True, False),  # a tie is the emotion's
        ({"fear": 3, "unknown": 5, "sadness": 2}, False, True, False),
        ({"fear": 3, "NF": 5, "sadness": 2}, False, True, False),
        ({"fear": 1, "unknown": 8, "sadness": 1}, False, False, False),
        ({"NF": 10}, False, False, False),
        ({"fear": 5, "sadness": 5}, True, True, False),  # half is not over half
        ({"fear": 5, "sadness": 4, "anger": 1}, True, True, True),  # 5 of 9
        ({"fear": 4, "unknown": 4, "sadness": 1, "anger": 1}, True, True, False),
    ],
)
def test_filters(
    tmp_path: Path, counts: dict[str, int], trainable: bool, scored: bool, majority: bool
) -> None:
    votes = read_counts(tmp_path, counts)
    found = (votes.trainable[0], votes.scored[0], votes.majority[0])
    assert found == (trainable, scored, majority)
    assert np.isfinite(votes.soft).all()


def test_rows_must_be_as_many_as_faces(tmp_path: Path) -> None:
    path = write_ferplus(tmp_path / "votes.csv", [("Training", {"fear": 10})] * 3)
    for faces in (2, 4):
        with pytest.raises(DataError, match=rf"votes on 3 faces, expected {faces}.* fer2013\.csv"):
            read_votes(path, CSV, np.zeros(faces, np.uint8))


def test_usage_must_be_the_one_of_the_face(tmp_path: Path) -> None:
    rows = [("Training", {"fear": 10}), ("PublicTest", {"fear": 10})]
    path = write_ferplus(tmp_path / "votes.csv", rows)
    with pytest.raises(DataError, match=r"row 3: Usage is 'PublicTest', expected PrivateTest"):
        read_votes(path, CSV, np.array([0, 2], np.uint8))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("Training,a.png,1,2,3", "5 fields, expected 12"),
        ("Training,a.png,0,0,0,0,0,0,0,0,0,x", "NF is 'x', expected a count"),
        ("Training,a.png,-1,0,0,0,0,0,0,0,0,0", "neutral is '-1', expected a count"),
        ("Training,a.png,2.5,0,0,0,0,0,0,0,0,0", "neutral is '2.5', expected a count"),
        ("Training,a.png,²,0,0,0,0,0,0,0,0,0", "neutral is '²', expected a count"),
    ],
)
def test_names_file_row_and_fault(tmp_path: Path, row: str, message: str) -> None:
    path = write_ferplus(tmp_path / "votes.csv", [("Training", {"fear": 10})])
    with path.open("a", encoding="utf-8") as file:
        file.write(row + "\n")
    with pytest.raises(DataError) as caught:
        read_votes(path, CSV, np.zeros(2, np.uint8))
    assert str(caught.value).startswith(f"{path}, row 3: {message}")


def test_refuses_other_files_by_their_header(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    for content in (b"", b"emotion,pixels,Usage\n", b"\x89PNG\r\n"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"votes\.csv, row 1: .* expected FER\+'s"):
            read_votes(path, CSV, np.zeros(1, np.uint8))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.csv: cannot be opened"):
        read_votes(tmp_path / "missing.csv", CSV, np.zeros(1, np.uint8))
