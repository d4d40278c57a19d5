"""Reads FER+: ten annotators' votes for each face of FER2013, and its usual filters.

Barsoum et al. 2016, "Training Deep Networks for Facial Expression Recognition with
Crowd-Sourced Label Distribution", arXiv:1608.01041.

A single vote for a class counts as an outlier and is removed. Of FER2013's faces these are used:

- for training, faces for which some emotion has at least as many votes as unknown and as NF (no
  face);
- for validation and test, faces for which any of the eight emotions has votes. The label is the
  emotion with most votes, in a tie the first in the published order (PrivateTest: 3,573 faces);
- for the majority test set, faces for which one emotion has more than half of all votes, including
  those for unknown and NF (PrivateTest: 3,153 faces).
"""

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from training.fer2013 import USAGES
from training.model.labels import FERPLUS_EMOTIONS
from training.samples import DataError

FILTERS: Final[tuple[str, ...]] = (
    "some emotion has as many votes as unknown and as NF, or more",
    "any of the 8 emotions has votes; the label has most of them",
    "any of the 8 emotions has votes; the label has most of them",
    "one emotion has over half of all votes",
)
"""The rules by which faces are selected: for training, validation, test, majority test set."""

_VOTED = (
    *("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"),
    *("unknown", "NF"),
)
_HEADER = ("Usage", "Image name", *_VOTED)
_OURS = np.array([_VOTED.index(emotion) for emotion in FERPLUS_EMOTIONS])
_UNKNOWN = len(FERPLUS_EMOTIONS)


@dataclass(frozen=True, eq=False)
class Votes:
    """The annotators' votes for each face of a csv, in its order, without single votes.

    Attributes:
        counts: int64[n, 10], in the published order: eight emotions, unknown, NF.
        fingerprint: sha256 of the file, in hexadecimal.
    """

    counts: npt.NDArray[np.int64]
    fingerprint: str

    @property
    def soft(self) -> npt.NDArray[np.float32]:
        """Each emotion's share of the votes for emotions, float32[n, 8]; rows sum to 1, or to 0."""
        ours = self.counts[:, _OURS]
        shares: npt.NDArray[np.float64] = ours / np.maximum(ours.sum(axis=1, keepdims=True), 1)
        return shares.astype(np.float32)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The emotion with most votes, int64[n], as index of FERPLUS_EMOTIONS."""
        ours: npt.NDArray[np.int64] = np.argsort(_OURS)[self.counts[:, :_UNKNOWN].argmax(axis=1)]
        return ours

    @property
    def trainable(self) -> npt.NDArray[np.bool_]:
        """Which faces training uses, bool[n]."""
        others: npt.NDArray[np.int64] = self.counts[:, _UNKNOWN:].max(axis=1)
        return (self._most > 0) & (self._most >= others)

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """Which faces have a label, bool[n]."""
        return self._most > 0

    @property
    def majority(self) -> npt.NDArray[np.bool_]:
        """For which faces one emotion has more than half of the votes, bool[n]."""
        return self._most * 2 > self._all

    @property
    def _most(self) -> npt.NDArray[np.int64]:
        most: npt.NDArray[np.int64] = self.counts[:, :_UNKNOWN].max(axis=1)
        return most

    @property
    def _all(self) -> npt.NDArray[np.int64]:
        total: npt.NDArray[np.int64] = self.counts.sum(axis=1)
        return total


def read_votes(path: Path, csv_path: Path, parts: npt.NDArray[np.uint8]) -> Votes:
    """Read the votes for a FER2013 csv.

    Args:
        path: FER+'s file, as published.
        csv_path: The csv, for messages.
        parts: uint8[n], the part of each face of the csv.

    Returns:
        The votes, in the order of the csv.

    Raises:
        DataError: The file cannot be read, is not FER+'s, or has other rows than the csv.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error
    counts = np.zeros((len(parts), len(_VOTED)), np.int64)
    rows = 0
    for number, row in _rows(path, content):
        if rows < len(parts):
            try:
                counts[rows] = _counts(row, int(parts[rows]))
            except ValueError as error:
                raise DataError(f"{path}, row {number}: {error}") from error
        rows += 1
    if rows != len(parts):
        raise DataError(
            f"{path}: votes on {rows} faces, expected {len(parts)}, as many as in {csv_path}"
        )
    counts[counts == 1] = 0
    return Votes(counts, hashlib.sha256(content).hexdigest())


def _rows(path: Path, content: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of each row after the header."""
    reader = csv.reader(content.decode("utf-8-sig", "replace").splitlines())
    header = [name.strip() for name in next(reader, [])]
    if header != list(_HEADER):
        raise DataError(
            f"{path}, row 1: header is {','.join(header)[:60]!r}, "
            f"expected FER+'s: {','.join(_HEADER)}"
        )
    for row in reader:
        if row:
            yield reader.line_num, row


def _counts(row: list[str], part: int) -> list[int]:
    """Return the ten counts of a row, or raise ValueError with the reason."""
    if len(row) != len(_HEADER):
        raise ValueError(f"{len(row)} fields, expected {len(_HEADER)}")
    if USAGES.get(row[0].strip()) != part:
        expected = next(usage for usage, known in USAGES.items() if known == part)
        raise ValueError(f"Usage is {row[0][:20]!r}, expected {expected}, as the faces' csv has it")
    votes = [field.strip() for field in row[2:]]
    for name, vote in zip(_VOTED, votes, strict=True):
        if not (vote.isascii() and vote.isdigit() and len(vote) <= 4):
            raise ValueError(f"{name} is {vote[:20]!r}, expected a count of votes")
    return [int(vote) for vote in votes]
