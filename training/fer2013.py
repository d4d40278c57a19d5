"""Reads FER2013's csv: one face per row, as text.

Goodfellow et al. 2013, "Challenges in Representation Learning", arXiv:1307.0414. Published with
two headers, `emotion,pixels,Usage` and `emotion, Usage, pixels`; columns are found by name.
"""

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from training.model.labels import FER2013_EMOTIONS
from training.samples import TEST, TRAIN, VALIDATION, DataError, Progress, Samples

READER = "fer2013 1"
"""Name and version of this reader. A new version makes older caches invalid."""

SIDE = 48
"""Rows and columns of a face, in pixels."""

USAGES: Final[Mapping[str, int]] = {
    "Training": TRAIN,
    "PublicTest": VALIDATION,
    "PrivateTest": TEST,
}
"""The csv's names of the splits."""

_COLUMNS = ("emotion", "pixels", "usage")
_EMOTIONS = {str(index).encode(): index for index in range(len(FER2013_EMOTIONS))}
_PARTS = {usage.encode(): part for usage, part in USAGES.items()}
_REPORT_ROWS = 500


def read(path: Path, progress: Progress | None = None) -> Samples:
    """Read the csv.

    Args:
        path: The file, with either header.
        progress: Called with the bytes read so far and the bytes in all.

    Returns:
        The faces, uint8[n, 48, 48], in the order of the file.

    Raises:
        DataError: The file cannot be opened, or its header or a row is not FER2013's.
    """
    size = path.stat().st_size if path.is_file() else 0
    digest, done = hashlib.sha256(), 0
    faces, labels, parts = bytearray(), bytearray(), bytearray()
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error
    # numpy only warns about text that is not a number; here it is an error.
    with file, warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        header = file.readline(1000)
        digest.update(header)
        columns = _columns(path, header)
        for number, line in enumerate(file, start=2):
            digest.update(line)
            done += len(line)
            if progress is not None and number % _REPORT_ROWS == 0:
                progress(done, size)
            if line.isspace():
                continue
            try:
                label, part, face = _row(line, columns)
            except ValueError as error:
                raise DataError(f"{path}, row {number}: {error}") from error
            labels.append(label)
            parts.append(part)
            faces += face
    return Samples(
        faces=np.frombuffer(faces, np.uint8).reshape(-1, SIDE, SIDE),
        labels=np.frombuffer(labels, np.uint8),
        parts=np.frombuffer(parts, np.uint8),
        emotions=FER2013_EMOTIONS,
        fingerprint=digest.hexdigest(),
    )


def _columns(path: Path, header: bytes) -> tuple[int, ...]:
    """Return the columns of emotion, pixels and usage."""
    text = header.decode("utf-8-sig", "replace").strip()
    names = [name.strip(' "').lower() for name in text.split(",")]
    if sorted(names) != sorted(_COLUMNS):
        raise DataError(
            f"{path}, row 1: header is {text[:60]!r}, expected FER2013's: emotion,pixels,Usage"
        )
    return tuple(names.index(column) for column in _COLUMNS)


def _row(line: bytes, columns: tuple[int, ...]) -> tuple[int, int, bytes]:
    """Return label, part and face of a row, or raise ValueError with the reason."""
    fields = [field.strip(b' "\r\n') for field in line.split(b",")]
    if len(fields) != len(columns):
        raise ValueError(f"{len(fields)} fields, expected 3: emotion, pixels and Usage")
    emotion, pixels, usage = (fields[column] for column in columns)
    if emotion not in _EMOTIONS:
        raise ValueError(f"emotion is {_shown(emotion)}, expected 0 to {len(_EMOTIONS) - 1}")
    if usage not in _PARTS:
        raise ValueError(f"Usage is {_shown(usage)}, expected {', '.join(USAGES)}")
    return _EMOTIONS[emotion], _PARTS[usage], _face(pixels)


def _face(pixels: bytes) -> bytes:
    try:
        # Four times as fast as splitting. With 64 bits no number overflows into the valid range.
        levels = np.fromstring(pixels, np.int64, sep=" ")
    except (DeprecationWarning, ValueError):
        raise _pixel_error(pixels) from None
    if levels.size != SIDE * SIDE:
        raise ValueError(f"{levels.size} pixels, expected {SIDE * SIDE} ({SIDE} by {SIDE})")
    if levels.min() < 0 or levels.max() > 255:
        raise _pixel_error(pixels)
    return levels.astype(np.uint8).tobytes()


def _pixel_error(pixels: bytes) -> ValueError:
    """Return the error for the first token that is not a grey level."""
    for position, token in enumerate(pixels.split(), start=1):
        if not token.isdigit() or int(token[:10]) > 255:
            return ValueError(f"pixel {position} is {_shown(token)}, expected 0 to 255")
    return ValueError(f"pixels are not numbers from 0 to 255 with spaces between: {pixels[:20]!r}")


def _shown(field: bytes) -> str:
    return repr(field[:20].decode("utf-8", "replace"))
