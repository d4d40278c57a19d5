"""Reads a folder of pictures per class, in any format and size that Pillow reads.

The layout is `directory/{train,validation,test}/<class>/<picture>` or
`directory/<class>/<picture>`. The latter is split by a hash of the files' content: 80 % train, 10 %
validation, 10 % test. Copies of a picture are therefore in the same part, and pictures that are
added later do not change the part of the others.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from training.model.labels import FERPLUS_EMOTIONS
from training.model.manifest import InputSpec
from training.pictures import read_face
from training.samples import PARTS, TEST, TRAIN, VALIDATION, DataError, Progress, Samples

READER = "folders 1"
"""Name and version of this reader. A new version makes older caches invalid."""

_PARTS: Final[dict[str, int]] = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "val", "valid"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
}

_SYNONYMS: Final[dict[str, str]] = {
    **dict.fromkeys(("anger", "angry"), "anger"),
    **dict.fromkeys(("disgust", "disgusted"), "disgust"),
    **dict.fromkeys(("fear", "fearful", "afraid", "scared"), "fear"),
    **dict.fromkeys(("happiness", "happy", "joy"), "happiness"),
    **dict.fromkeys(("sadness", "sad"), "sadness"),
    **dict.fromkeys(("surprise", "surprised"), "surprise"),
    "neutral": "neutral",
    **dict.fromkeys(("contempt", "contemptuous"), "contempt"),
}

_IGNORED = ("thumbs.db", "desktop.ini")  # written by file managers


@dataclass(frozen=True)
class Picture:
    """A file that is not read yet.

    Attributes:
        path: Of the file.
        folder: The name of its folder, which is its class.
        part: Its index in PARTS; None if it follows from the content.
    """

    path: Path
    folder: str
    part: int | None


def find_pictures(directory: Path) -> list[Picture]:
    """List the pictures of a directory, in the order of their paths.

    Args:
        directory: In one of the two layouts.

    Returns:
        Its pictures, 1 or more.

    Raises:
        DataError: The directory has neither layout, lacks a part, or has a class without pictures.
    """
    folders = _folders(directory)
    parts = {f: _PARTS[f.name.lower()] for f in folders if f.name.lower() in _PARTS}
    if not parts:
        return [picture for folder in folders for picture in _pictures(folder, None)]
    if strange := [folder for folder in folders if folder not in parts]:
        raise DataError(
            f"{strange[0]}: beside {next(iter(parts))}, expected {', '.join(PARTS)} only"
        )
    for part, name in enumerate(PARTS):
        if part not in parts.values():
            raise DataError(f"{directory}: no folder {name}, expected {', '.join(PARTS)}")
    return [
        picture
        for folder, part in parts.items()
        for inner in _folders(folder)
        for picture in _pictures(inner, part)
    ]


def listing_key(directory: Path, pictures: list[Picture], spec: InputSpec) -> str:
    """Return the cache key: of the path, size and time of each file, and of the input spec.

    Raises:
        DataError: A picture cannot be opened any more.
    """
    digest = hashlib.sha256()
    for picture in pictures:
        try:
            stat = picture.path.stat()
        except OSError as error:
            raise DataError(f"{picture.path}: cannot be opened ({error.strerror})") from error
        digest.update(_place(picture, directory))
        digest.update(f"\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return f"{READER} {spec.width}x{spec.height} {spec.resample} {digest.hexdigest()}"


def read(
    directory: Path, pictures: list[Picture], spec: InputSpec, progress: Progress | None = None
) -> Samples:
    """Decode pictures.

    Args:
        directory: The argument of `find_pictures`.
        pictures: From `find_pictures`.
        spec: The size of a face, and the filter for resizing.
        progress: Called with the pictures read so far and the pictures in all.

    Returns:
        Their faces, uint8[n, height, width], in the same order.

    Raises:
        DataError: A picture cannot be read, or only some folders have names of emotions.
    """
    named = name_emotions(directory, {picture.folder for picture in pictures})
    emotions = _in_order(set(named.values()))
    if len(emotions) > 256:
        raise DataError(f"{directory}: {len(emotions)} classes, expected 256 at most")
    faces = np.empty((len(pictures), spec.height, spec.width), np.uint8)
    labels = np.array([emotions.index(named[p.folder]) for p in pictures], np.uint8)
    parts = np.empty(len(pictures), np.uint8)
    digest = hashlib.sha256()
    for index, picture in enumerate(pictures):
        faces[index], content = read_face(picture.path, spec)
        own = hashlib.sha256(content).digest()
        parts[index] = _part_of(own) if picture.part is None else picture.part
        digest.update(_place(picture, directory) + b"\0" + own)
        if progress is not None:
            progress(index + 1, len(pictures))
    return Samples(faces, labels, parts, emotions, digest.hexdigest())


def name_emotions(directory: Path, folders: set[str]) -> dict[str, str]:
    """Return the emotion of each folder.

    Args:
        directory: Their parent, for messages.
        folders: Their names.

    Returns:
        For each folder its name in `training.model.labels`, if all folders have such names or
        synonyms of them, in any case. The folders' own names if none has.

    Raises:
        DataError: Only some folders have such names, which is most likely a mistake.
    """
    known = {folder: _SYNONYMS[folder.lower()] for folder in folders if folder.lower() in _SYNONYMS}
    if not known:
        return {folder: folder for folder in folders}
    if strange := sorted(folders - known.keys()):
        raise DataError(
            f"{directory}: folder {strange[0]} is none of {', '.join(FERPLUS_EMOTIONS)}, "
            f"but {min(known)} is; expected all folders to be named so, or none"
        )
    return known


def _in_order(emotions: set[str]) -> tuple[str, ...]:
    """Return known emotions in the project's order, other labels in alphabetical order."""
    if emotions <= set(FERPLUS_EMOTIONS):
        return tuple(emotion for emotion in FERPLUS_EMOTIONS if emotion in emotions)
    return tuple(sorted(emotions))


def _folders(directory: Path) -> list[Path]:
    """List the folders in a directory; without any, raise DataError."""
    folders = [path for path in _entries(directory) if path.is_dir()]
    if not folders:
        raise DataError(f"{directory}: no folders, expected one for each class")
    return folders


def _pictures(folder: Path, part: int | None) -> list[Picture]:
    paths = [path for path in _entries(folder) if path.name.lower() not in _IGNORED]
    if not paths:
        raise DataError(f"{folder}: no pictures, expected 1 or more")
    if inner := [path for path in paths if path.is_dir()]:
        raise DataError(f"{inner[0]}: a folder, expected only pictures in {folder}")
    return [Picture(path, folder.name, part) for path in paths]


def _entries(directory: Path) -> list[Path]:
    """List a directory without hidden files, in the same order on every system."""
    try:
        entries = [path for path in directory.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{directory}: cannot be listed ({error.strerror})") from error
    return sorted(entries)


def _place(picture: Picture, directory: Path) -> bytes:
    return os.fsencode(picture.path.relative_to(directory).as_posix())


def _part_of(digest: bytes) -> int:
    """Return the part that follows from a hash: 80 % train, 10 % validation, 10 % test."""
    draw = int.from_bytes(digest[:8], "big") % 10
    return TRAIN if draw < 8 else (VALIDATION if draw == 8 else TEST)
