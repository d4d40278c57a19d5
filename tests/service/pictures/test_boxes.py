import numpy as np
import pytest

from service.pictures.boxes import (
    COLUMNS,
    most_confident,
    most_turned,
    moved,
    overlaps,
    rolls,
    sides,
    turned,
    without_parts,
)

UPRIGHT = ((3.0, 4.0), (7.0, 4.0), (5.0, 6.0), (4.0, 8.0), (6.0, 8.0))


def faces(*rows: tuple[float, ...]) -> np.ndarray:
    """Boxes of left, top, right, bottom and confidence, each with an upright face's points."""
    points = [value for point in UPRIGHT for value in point]
    return np.asarray([[*row, *points] for row in rows], np.float32).reshape(-1, COLUMNS)


def test_overlap_is_intersection_over_union() -> None:
    one = faces((0, 0, 2, 2, 1.0))[0]
    others = faces((0, 0, 2, 2, 1.0), (1, 0, 3, 2, 1.0), (2, 2, 4, 4, 1.0))
    assert overlaps(one, others) == pytest.approx([1.0, 1 / 3, 0.0])


def test_of_boxes_of_one_face_the_most_confident_is_kept() -> None:
    seen = faces((0, 0, 10, 10, 0.5), (2, 0, 12, 10, 1.0), (50, 50, 60, 64, 0.7))
    kept = most_confident(seen, overlap=0.3)
    assert kept[:, :5] == pytest.approx(seen[[1, 2], :5])
    assert sides(kept) == pytest.approx([10, 14])
    assert len(most_confident(faces(), overlap=0.3)) == 0


def test_a_mouth_is_not_a_face() -> None:
    face, mouth, beside = (0, 0, 10, 10, 0.9), (3, 6, 7, 9, 0.6), (20, 0, 30, 10, 0.5)
    kept = without_parts(faces(face, mouth, beside))
    assert kept[:, 4] == pytest.approx([0.9, 0.5])
    # A larger, doubtful box around a certain face is kept: which of them is right is not known.
    assert len(without_parts(faces((3, 3, 5, 5, 0.9), face))) == 2


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_what_was_found_in_a_turned_picture_comes_back_to_its_place(quarters: int) -> None:
    upright = faces((1, 2, 9, 10, 0.9))
    width, height = 40, 30
    lying, size = upright, (width, height)
    for _ in range((4 - quarters) % 4):  # as the face lies in a picture that is turned so
        lying = turned(lying, 1, (size[1], size[0]))
        size = (size[1], size[0])
    there = turned(lying, quarters, (width, height)) if quarters else lying
    assert there == pytest.approx(upright)


def test_roll_is_clockwise_and_says_how_the_picture_must_be_turned() -> None:
    upright = faces((0, 0, 10, 10, 0.9))
    assert rolls(upright) == pytest.approx([0])
    # A picture in which it was found after a quarter counterclockwise shows it turned clockwise.
    for quarters, roll in ((1, 90), (2, 180), (3, -90)):
        lying = turned(upright, quarters, (10, 10))
        assert abs(np.degrees(rolls(lying))[0]) == pytest.approx(abs(roll), abs=0.01)
        assert most_turned(lying) == quarters
        if quarters != 2:
            assert np.degrees(rolls(lying)) == pytest.approx([roll], abs=0.01)
    assert most_turned(np.concatenate([upright, upright, lying])) == 0


def test_points_move_with_their_box() -> None:
    there = moved(faces((0, 2, 10, 12, 0.9)), 2, 5, -1)
    assert there[0, :5] == pytest.approx([5, 3, 25, 23, 0.9])
    assert there[0, 5:7] == pytest.approx([11, 7])
