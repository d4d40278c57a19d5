import numpy as np
import pytest

from service.pictures.boxes import merge, overlaps, without_parts


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.asarray(rows, np.float32).reshape(-1, 5)


def test_overlap_is_intersection_over_union() -> None:
    one = boxes((0, 0, 2, 2, 1.0))[0]
    others = boxes((0, 0, 2, 2, 1.0), (1, 0, 3, 2, 1.0), (2, 2, 4, 4, 1.0))
    assert overlaps(one, others) == pytest.approx([1.0, 1 / 3, 0.0])


def test_boxes_of_one_face_become_their_weighted_mean() -> None:
    seen = boxes((0, 0, 10, 10, 0.5), (2, 0, 12, 10, 1.0), (50, 50, 60, 60, 0.7))
    merged = merge(seen, overlap=0.3)
    assert merged[:, 4] == pytest.approx([1.0, 0.7])
    assert merged[0, :4] == pytest.approx([4 / 3, 0, 34 / 3, 10])
    assert len(merge(boxes(), overlap=0.3)) == 0


def test_a_mouth_is_not_a_face() -> None:
    face, mouth, beside = (0, 0, 10, 10, 0.9), (3, 6, 7, 9, 0.6), (20, 0, 30, 10, 0.5)
    kept = without_parts(boxes(face, mouth, beside))
    assert kept[:, 4] == pytest.approx([0.9, 0.5])
    # A larger, doubtful box around a certain face is kept: which of them is right is not known.
    assert len(without_parts(boxes((3, 3, 5, 5, 0.9), face))) == 2
