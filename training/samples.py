"""Faces with labels and parts, read from any format, and their cache."""

import hashlib
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

PARTS: Final[tuple[str, ...]] = ("train", "validation", "test")
"""The parts of a data set; `Samples.parts` counts in this order."""

TRAIN, VALIDATION, TEST = range(3)

Progress = Callable[[int, int], None]
"""Called from time to time with the amount done and in all, in bytes or in pictures."""

_LAYOUT = 2  # of the cache's arrays
_log = logging.getLogger(__name__)


class DataError(Exception):
    """The data cannot be used; names the file and row, what was expected and what was found."""


@dataclass(frozen=True, eq=False)
class Samples:
    """All faces of one source, in its order.

    Attributes:
        faces: uint8[n, h, w], 0-255, grey.
        labels: uint8[n], each face's index in `emotions`.
        parts: uint8[n], each face's index in `PARTS`.
        emotions: The labels' names.
        fingerprint: sha256 of the source's content, in hexadecimal.
        notes: Sentences about files that were left out and about doubtful labels or splits.
    """

    faces: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    parts: npt.NDArray[np.uint8]
    emotions: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()


def cache_folder() -> Path | None:
    """Return the folder of all caches, which is outside of the data.

    Returns:
        `attention-fer/faces` in XDG_CACHE_HOME or ~/.cache; None for a user without a home folder.
    """
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not given.is_absolute():  # the standard says to ignore a relative one
        try:
            given = Path.home() / ".cache"
        except RuntimeError:
            return None
    return given / "attention-fer" / "faces"


def cache_path(data: Path) -> Path | None:
    """Return the path of a source's cache; None without a cache folder.

    The file has the source's name and a hash of its path, which distinguishes equal names.
    """
    folder, whole = cache_folder(), data.absolute()  # "." has no name of its own
    digest = hashlib.sha256(os.fsencode(whole)).hexdigest()[:12]
    return folder and folder / f"{whole.name[:80]}-{digest}.npz"


def cached_files() -> list[Path]:
    """Return the caches of all sources, in the order of their names."""
    folder = cache_folder()
    return sorted(folder.glob("*.npz")) if folder else []


def kept_of(data: Path) -> list[Path]:
    """Return the existing caches of a source: the present one, and that of release 0.2 beside it.

    Args:
        data: The source; it need not exist any more.
    """
    whole = data.absolute()
    paths = (cache_path(data), whole.with_name(f"{whole.name}.cache.npz"))
    return [path for path in paths if path and path.is_file()]


def cached(path: Path | None, key: str, read: Callable[[], Samples]) -> Samples:
    """Return the samples from the cache, or read them and write the cache.

    A cache with another key, or a damaged one, is replaced. If it cannot be written, this is logged
    and not an error. Several processes may call this at the same time.

    Args:
        path: The cache; None for none.
        key: Equal keys mean equal samples.
        read: Reads the source.

    Returns:
        The samples.

    Raises:
        DataError: From `read`.
    """
    if path is None:
        return read()
    found = _load(path, key)
    if found is not None:
        return found
    samples = read()
    try:
        _save(path, key, samples)
    except OSError as error:
        _log.info("%s: the cache cannot be written (%s)", path, error.strerror or error)
    return samples


def _load(path: Path, key: str) -> Samples | None:
    try:
        with zipfile.ZipFile(path) as archive:  # numpy does not verify all checksums
            if archive.testzip() is not None:
                raise ValueError("a checksum does not match")
        with np.load(path, allow_pickle=False) as arrays:
            if str(arrays["key"]) != _full(key):
                return None
            return Samples(
                faces=arrays["faces"],
                labels=arrays["labels"],
                parts=arrays["parts"],
                emotions=tuple(map(str, arrays["emotions"])),
                fingerprint=str(arrays["fingerprint"]),
                notes=tuple(map(str, arrays["notes"])),
            )
    except FileNotFoundError:
        return None
    # The exceptions that zipfile and numpy raise for invalid data.
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        _log.info("%s: the cache is damaged, and is written again (%s)", path, error)
        return None


def _save(path: Path, key: str, samples: Samples) -> None:
    """Write the cache atomically, readable by this user only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".npz", dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(
                file,
                key=np.array(_full(key)),
                faces=samples.faces,
                labels=samples.labels,
                parts=samples.parts,
                emotions=np.array(samples.emotions),
                fingerprint=np.array(samples.fingerprint),
                notes=np.array(samples.notes, dtype=np.str_),
            )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _full(key: str) -> str:
    return f"{_LAYOUT} {key}"
