from hashlib import sha256

import numpy as np
import pytest

from training.partition import draw_parts, find_copies, missing_parts
from training.samples import TEST, TRAIN, VALIDATION


def digests(count: int, start: int = 0) -> list[bytes]:
    return [sha256(f"{index}".encode()).digest() for index in range(start, start + count)]


def labels(*counts: int) -> np.ndarray:
    return np.repeat(np.arange(len(counts), dtype=np.uint8), counts)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({None}, [VALIDATION, TEST]),
        ({TRAIN}, [VALIDATION, TEST]),
        ({TRAIN, TEST}, [VALIDATION]),
        ({TRAIN, VALIDATION}, [TEST]),
        ({TRAIN, VALIDATION, TEST}, []),
        ({TEST}, []),
        ({VALIDATION, TEST}, []),
    ],
)
def test_what_is_missing(given: set[int | None], missing: list[int]) -> None:
    assert missing_parts(given) == missing


def test_each_class_gives_a_tenth_to_each_part() -> None:
    which = labels(300, 40, 7, 3, 2, 1)
    parts = draw_parts([None] * len(which), which, digests(len(which)))
    counts = [np.bincount(parts[which == label], minlength=3).tolist() for label in range(6)]
    assert counts == [[240, 30, 30], [32, 4, 4], [5, 1, 1], [1, 1, 1], [2, 0, 0], [1, 0, 0]]


def test_given_parts_stay() -> None:
    parts = draw_parts([TRAIN] * 50 + [TEST] * 50, labels(100), digests(100))
    assert (parts[50:] == TEST).all()
    assert np.bincount(parts[:50], minlength=3).tolist() == [45, 5, 0]


def test_the_split_follows_from_content_not_from_order() -> None:
    own, which = digests(100), labels(60, 40)
    turned = draw_parts([None] * 100, which[::-1].copy(), own[::-1])[::-1]
    assert draw_parts([None] * 100, which, own).tolist() == turned.tolist()


def test_copies_share_a_part_in_a_class_and_across() -> None:
    own = digests(50)
    parts = draw_parts([None] * 150, labels(100, 50), own * 3)
    assert parts[:50].tolist() == parts[50:100].tolist() == parts[100:].tolist()
    assert set(parts.tolist()) == {TRAIN, VALIDATION, TEST}


def test_added_pictures_move_few() -> None:
    before = draw_parts([None] * 200, labels(200), digests(200))
    after = draw_parts([None] * 230, labels(230), digests(230))
    assert (before != after[:200]).sum() <= 10


def test_copies_across_classes_and_into_train_are_counted() -> None:
    one, two, three = digests(3)
    parts = np.array([TRAIN, TEST, TRAIN, TRAIN, VALIDATION, TEST], np.uint8)
    which = np.array([0, 0, 0, 1, 1, 1], np.uint8)
    assert find_copies(parts, which, [one, one, two, two, three, three]) == (1, 1)
