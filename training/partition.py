"""Splits a data set into its parts, where its folders do not; and finds copies across parts.

The split is stratified, and follows from what the pictures hold: a tenth of each class for each
missing part, the rest for train. Copies of a picture share a part, and pictures added later move
few of the earlier ones.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from training.samples import TEST, TRAIN, VALIDATION

_HELD_OUT: Final = 0.1  # share of each class that a missing part is given


def missing_parts(given: Iterable[int | None]) -> list[int]:
    """Return the parts that are to be drawn.

    Args:
        given: The part of each picture; None where none is given.

    Returns:
        Of validation and test those that no picture is in. None without pictures to draw from:
        such data is only measured on.
    """
    there = set(given)
    if not there & {None, TRAIN}:
        return []
    return [part for part in (VALIDATION, TEST) if part not in there]


def draw_parts(
    given: Sequence[int | None], labels: npt.NDArray[np.uint8], digests: Sequence[bytes]
) -> npt.NDArray[np.uint8]:
    """Give each picture its part.

    Args:
        given: The part of each; None where none is given.
        labels: uint8[n].
        digests: Of what each picture holds.

    Returns:
        uint8[n]. A class of fewer pictures than there are parts is in train alone.
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
    """Return the different contents of each class's training pictures, by their digests' order.

    What is in several classes counts in one of them, so that its copies share a part.
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
    """Count pictures whose copies harm.

    Args:
        parts: uint8[n].
        labels: uint8[n].
        digests: Of what each picture holds.

    Returns:
        How many different pictures are in more than one class; and how many to measure on are
        also in train.
    """
    classes: dict[bytes, set[int]] = defaultdict(set)
    places: dict[bytes, set[int]] = defaultdict(set)
    for own, label, part in zip(digests, labels.tolist(), parts.tolist(), strict=True):
        classes[own].add(label)
        places[own].add(part)
    doubtful = sum(len(found) > 1 for found in classes.values())
    leaked = sum(len(found) > 1 and TRAIN in found for found in places.values())
    return doubtful, leaked
