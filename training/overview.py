"""Describes a data set for the user: counts, notes and warnings."""

from pathlib import Path
from typing import Final

from training.dataset import Dataset
from training.samples import PARTS, cache_path, kept_of

FEW: Final = 100
"""A class with fewer training faces gets a warning."""

_NAMED = 10  # classes that a warning names


def describe(data: Dataset, *, to_train: bool) -> list[str]:
    """Return lines of text about a data set.

    Args:
        data: The data set.
        to_train: Whether it is for training.

    Returns:
        A table of faces by class and part, the notes, and a warning about classes with few faces.
    """
    return [
        *_tabulate(data),
        *(f"note: {note}" for note in data.notes),
        *(_warn(data) if to_train else ()),
    ]


def describe_cache(data: Path) -> list[str]:
    """Return lines of text that say where a source's cache is, and how to delete it.

    Args:
        data: The source; it was read before.
    """
    path, kept = cache_path(data), kept_of(data)
    if path not in kept:
        return ["the faces are not kept for the next run: no cache folder can be written"]
    how = f"python -m training cache --data {data} --delete"
    lines = [f"the faces are kept in {path}; delete them: {how}"]
    others = [f"note: {old} is of an older release and not used" for old in kept if old != path]
    return lines + others


def _counts(data: Dataset) -> dict[str, list[int]]:
    """Return how many faces of each emotion a part has, by the part's name."""
    splits = zip(PARTS, (data.train, data.validation, data.test), strict=True)
    classes = len(data.emotions)
    return {name: split.labels.bincount(minlength=classes).tolist() for name, split in splits}


def _tabulate(data: Dataset) -> list[str]:
    counts = _counts(data)
    width = max(len("faces in all"), *map(len, data.emotions))
    rows = [
        (emotion, [counts[part][place] for part in PARTS])
        for place, emotion in enumerate(data.emotions)
    ]
    rows.append(("faces in all", [sum(counts[part]) for part in PARTS]))
    head = f"{'':{width}s}" + "".join(f"  {part:>10s}" for part in PARTS)
    return [head, *(f"{name:{width}s}" + "".join(f"  {n:10,d}" for n in row) for name, row in rows)]


def _warn(data: Dataset) -> list[str]:
    trained = zip(data.emotions, _counts(data)[PARTS[0]], strict=True)
    few = [f"{emotion} ({count})" for emotion, count in trained if count < FEW]
    if not few:
        return []
    more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
    return [
        f"warning: fewer than {FEW} training faces: {', '.join(few[:_NAMED])}{more}; "
        "their recall may be low, and figures measured on few faces vary much"
    ]
