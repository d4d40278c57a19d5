"""Splits a data set into parts where its folders do not, and finds copies in different parts.

The split is stratified and follows from the content of the pictures: a tenth of each class for each
missing part, the rest for train. Copies of a picture are in the same part, and pictures that are
added later change the part of few others.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from training.samples import TEST, TRAIN, VALIDATION

_HELD_OUT: Final = 0.1  # share of each class that a missing part is given


def missing_parts(given: Iterable[int | None]) -> list[int]:
    """Return the parts that have to be selected.

    Args:
        given: The part of each picture by its folder; None without one.

    Returns:
        Validation or test or both, if no picture is in them. Nothing if there are no training
        pictures to select from, because such data is for evaluation only.
    """
    there = set(given)
    if not there & {None, TRAIN}:
        return []
    return [part for part in (VALIDATION, TEST) if part not in there]


def draw_parts(
    given: Sequence[int | None], labels: npt.NDArray[np.uint8], digests: Sequence[bytes]
) -> npt.NDArray[np.uint8]:
    """Return the part of each picture.

    Args:
        given: The part by its folder; None without one.
        labels: uint8[n].
        digests: The hash of each picture's content.

    Returns:
        uint8[n]. A class with fewer pictures than parts is in train only.
    """
    parts = np.array([TRAIN if part is None else part for part in given], np.uint8)
    missing = missing_parts(given)
    drawn: dict[bytes, int] = {}
    for contents in _by_class(labels, digests, parts):
        count = max(1, round(_HELD_OUT * len(contents))) if len(contents) > len(missing) else 0
        for place, part in enumerate(missing):
            drawn.update(dict.fromkeys(contents[place * count : (place + 1) * count], part))
    for index, own in enumerate(digests):
        if parts[index] == TRAIN:
            parts[index] = drawn.get(own, TRAIN)
    return parts


def _by_class(
    labels: npt.NDArray[np.uint8], digests: Sequence[bytes], parts: npt.NDArray[np.uint8]
) -> list[list[bytes]]:
    """Return the hashes of each class's training pictures, without copies, in order.

    A picture in several classes counts in one of them, so that its copies are in the same part.
    """
    first: dict[bytes, int] = {}
    for own, label, part in zip(digests, labels.tolist(), parts.tolist(), strict=True):
        if part == TRAIN:
            first[own] = min(label, first.get(own, label))
    classes: dict[int, list[bytes]] = defaultdict(list)
    for own in sorted(first):
        classes[first[own]].append(own)
    return list(classes.values())


def find_copies(
    parts: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], digests: Sequence[bytes]
) -> tuple[int, int]:
    """Count pictures with copies in other classes or parts.

    Args:
        parts: uint8[n].
        labels: uint8[n].
        digests: The hash of each picture's content.

    Returns:
        The number of different pictures in more than one class, and of those in train and in
        another part.
    """
    classes: dict[bytes, set[int]] = defaultdict(set)
    places: dict[bytes, set[int]] = defaultdict(set)
    for own, label, part in zip(digests, labels.tolist(), parts.tolist(), strict=True):
        classes[own].add(label)
        places[own].add(part)
    doubtful = sum(len(found) > 1 for found in classes.values())
    leaked = sum(len(found) > 1 and TRAIN in found for found in places.values())
    return doubtful, leaked
