"""Reads a folder of pictures per class, in any format and size that Pillow reads.

The layout is `directory/{train,validation,test}/<class>/<picture>`, of which any part may be
missing, or `directory/<class>/<picture>`. `training.partition` selects the pictures of a missing
part. Other files are left out, counted and named in `Samples.notes`.
"""

import difflib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.model.labels import FERPLUS_EMOTIONS
from training.model.manifest import InputSpec
from training.partition import draw_parts, find_copies, missing_parts
from training.pictures import is_crop, read_face
from training.samples import PARTS, TEST, TRAIN, VALIDATION, DataError, Progress, Samples

READER = "folders 2"
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
_IGNORED_FOLDERS = ("__macosx", "@eadir", "$recycle.bin", "lost+found")  # of archives, systems

_NAMED = 3  # files or folders that a note names
_UNCUT = (
    "larger than a crop of a face: resized as a whole, but the service would cut the face out, as "
    "python -m service crop does"
)
_SLIP = 0.8  # similarity of names from which one counts as misspelt, 0 to 1
_LONGEST_NAME = 100  # of a label, as a checkpoint's manifest takes it


@dataclass(frozen=True)
class Picture:
    """A file that is not read yet.

    Attributes:
        path: Of the file.
        folder: The name of its folder, which is its class.
        part: Its index in PARTS; None in the layout without parts.
    """

    path: Path
    folder: str
    part: int | None


@dataclass(frozen=True)
class Listing:
    """The content of a directory.

    Attributes:
        pictures: Files that may be pictures, 1 or more.
        notes: Sentences about what was left out.
    """

    pictures: tuple[Picture, ...]
    notes: tuple[str, ...]


def find_pictures(directory: Path) -> Listing:
    """List the pictures of a directory, in the order of their paths.

    Args:
        directory: In one of the two layouts. Any of the three parts may be missing.

    Raises:
        DataError: The directory cannot be listed, or has neither layout.
    """
    folders = _folders(directory)
    parts = {folder: _PARTS[folder.name.lower()] for folder in folders if _is_part(folder)}
    classes: list[tuple[Path, int | None]] = [(folder, None) for folder in folders]
    if parts:
        classes = [(inner, part) for folder, part in parts.items() for inner in _folders(folder)]
    others = [folder for folder in folders if parts and folder not in parts]
    pictures, nested = [], []
    for folder, part in classes:
        files, inner = _contents(folder)
        pictures += [Picture(path, folder.name, part) for path in files]
        nested += inner
        others += [] if files or inner else [folder]
    if not pictures:
        raise DataError(_empty(directory, folders))
    notes = (
        _note("folder", "left out, without pictures of a class", directory, others),
        _note("folder", "inside a class's folder left out", directory, nested),
    )
    return Listing(tuple(pictures), tuple(filter(None, notes)))


def listing_key(directory: Path, listing: Listing, spec: InputSpec) -> str:
    """Return the cache key: of the path, size and time of each file, and of the input spec."""
    digest = hashlib.sha256("\n".join(listing.notes).encode("utf-8", "surrogateescape"))
    for picture in listing.pictures:
        digest.update(_place(picture, directory))
        try:
            stat = picture.path.stat()
        except OSError:  # `read` reports it
            continue
        digest.update(f"\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return f"{READER} {spec.width}x{spec.height} {spec.resample} {digest.hexdigest()}"


def read(
    directory: Path, listing: Listing, spec: InputSpec, progress: Progress | None = None
) -> Samples:
    """Decode pictures.

    Args:
        directory: The argument of `find_pictures`.
        listing: From `find_pictures`.
        spec: The size of a face, and the filter for resizing.
        progress: Called with the pictures read so far and the pictures in all.

    Returns:
        Their faces, uint8[n, height, width], in the same order. Damaged files are left out and
        named in the notes.

    Raises:
        DataError: No file is a picture, or a folder's name is misspelt or cannot be a label.
    """
    named = name_emotions(directory, {picture.folder for picture in listing.pictures})
    decoded = _decode(listing.pictures, spec, progress)
    if not decoded.pictures:
        raise DataError(f"{directory}: none of its {len(listing.pictures)} files is a picture")
    emotions = _in_order({named[picture.folder] for picture in decoded.pictures})
    if len(emotions) > 256:
        raise DataError(f"{directory}: {len(emotions)} classes, expected 256 at most")
    labels = np.array([emotions.index(named[p.folder]) for p in decoded.pictures], np.uint8)
    given = [picture.part for picture in decoded.pictures]
    parts = draw_parts(given, labels, decoded.digests)
    digest = hashlib.sha256()
    for picture, own in zip(decoded.pictures, decoded.digests, strict=True):
        digest.update(_place(picture, directory) + b"\0" + own)
    notes = (
        *listing.notes,
        _note("file", "left out, not a whole picture", directory, decoded.broken),
        _note("picture", _UNCUT, directory, decoded.uncut),
        _drawn(given),
        *_doubts(emotions, find_copies(parts, labels, decoded.digests)),
    )
    notes = tuple(filter(None, notes))
    return Samples(decoded.faces, labels, parts, emotions, digest.hexdigest(), notes)


@dataclass(frozen=True, eq=False)
class _Decoded:
    """Pictures that could be read, with their faces and hashes; and files that could not.

    `uncut` are the pictures in which the service would search for a face.
    """

    pictures: list[Picture]
    faces: npt.NDArray[np.uint8]
    digests: list[bytes]
    broken: list[Path]
    uncut: list[Path]


def _decode(pictures: Sequence[Picture], spec: InputSpec, progress: Progress | None) -> _Decoded:
    faces = np.empty((len(pictures), spec.height, spec.width), np.uint8)
    kept: list[Picture] = []
    digests, broken, uncut = [], [], []
    for index, picture in enumerate(pictures):
        try:
            faces[len(kept)], content = read_face(picture.path, spec)
        except DataError:
            broken.append(picture.path)
        else:
            kept.append(picture)
            digests.append(hashlib.sha256(content).digest())
            uncut += [] if is_crop(content) else [picture.path]
        if progress is not None:
            progress(index + 1, len(pictures))
    return _Decoded(kept, faces[: len(kept)], digests, broken, uncut)


def _drawn(given: Sequence[int | None]) -> str:
    """Return a note about parts that had no folder; empty if all had one."""
    names = [PARTS[part] for part in missing_parts(given)]
    text = f"no folder {' and '.join(names)}: drawn from the others, a tenth of each class for each"
    return text if names else ""


def _doubts(emotions: Sequence[str], copies: tuple[int, int]) -> list[str]:
    """Return notes about doubtful labels and splits."""
    doubtful, leaked = copies
    notes = []
    if doubtful:
        notes.append(f"pictures that are also in another class: {doubtful}")
    if leaked:
        notes.append(f"pictures to measure on that are also in train: {leaked}")
    if all(emotion.isdecimal() for emotion in emotions):
        notes.append(
            "the classes are numbers; to use a shipped checkpoint, name the folders by emotions "
            "(RAF-DB's 1 to 7: surprise, fear, disgust, happiness, sadness, anger, neutral)"
        )
    return notes


def name_emotions(directory: Path, folders: set[str]) -> dict[str, str]:
    """Return the emotion of each folder.

    Args:
        directory: Their parent, for messages.
        folders: Their names.

    Returns:
        For each folder its name in `training.model.labels`, if it is such a name or a synonym of
        one, in any case. Otherwise its own name, as a new label.

    Raises:
        DataError: Beside known names, one is similar to a known one and most likely misspelt; or a
            name cannot be a label.
    """
    if wrong := [f for f in folders if not f.isprintable() or len(f) > _LONGEST_NAME]:
        raise DataError(
            f"{directory}: folder {min(wrong)!r} names a class, expected at most "
            f"{_LONGEST_NAME} printable characters"
        )
    known = {folder: _SYNONYMS[folder.lower()] for folder in folders if folder.lower() in _SYNONYMS}
    for folder in sorted(folders - known.keys()):
        near = difflib.get_close_matches(folder.lower(), _SYNONYMS, n=1, cutoff=_SLIP)
        if known and near:
            raise DataError(
                f"{directory}: folder {folder} is none of {', '.join(FERPLUS_EMOTIONS)}, but "
                f"{min(known)} is; name it {_SYNONYMS[near[0]]} if that is meant"
            )
    return {folder: known.get(folder, folder) for folder in folders}


def _in_order(emotions: set[str]) -> tuple[str, ...]:
    """Return known emotions in the project's order, other labels in alphabetical order."""
    if emotions <= set(FERPLUS_EMOTIONS):
        return tuple(emotion for emotion in FERPLUS_EMOTIONS if emotion in emotions)
    return tuple(sorted(emotions))


def _is_part(folder: Path) -> bool:
    return folder.name.lower() in _PARTS


def _folders(directory: Path) -> list[Path]:
    return [path for path in _entries(directory) if path.is_dir()]


def _contents(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the files in a class's folder, or none if none can be a picture; and its folders."""
    if folder.name.lower() in _IGNORED_FOLDERS:
        return [], []
    entries = [path for path in _entries(folder) if path.name.lower() not in _IGNORED]
    files = [path for path in entries if path.is_file()]  # reading a pipe would block
    known = Image.registered_extensions()
    possible = any(not path.suffix or path.suffix.lower() in known for path in files)
    return files if possible else [], [path for path in entries if path.is_dir()]


def _empty(directory: Path, folders: Sequence[Path]) -> str:
    """Return the error message for a directory without pictures in the expected places."""
    inner = [folder for folder in folders if folder.name.lower() not in _IGNORED_FOLDERS]
    if len(inner) == 1 and not _is_part(inner[0]) and _folders(inner[0]):
        return f"{directory}: no pictures; perhaps --data {inner[0]} is meant"
    what = "no pictures in its folders" if inner else "no folders"
    below = "; folders inside a class's folder are not read" if any(map(_folders, inner)) else ""
    return f"{directory}: {what}, expected a folder of pictures for each class{below}"


def _note(kind: str, what: str, directory: Path, paths: Sequence[Path]) -> str:
    """Count paths and name some of them; empty if there are none."""
    if not paths:
        return ""
    names = [path.relative_to(directory).as_posix() for path in paths[:_NAMED]]
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return f"{len(paths)} {kind}{'s' if len(paths) > 1 else ''} {what}: {', '.join(names)}{more}"


def _entries(directory: Path) -> list[Path]:
    """List a directory without hidden files, in the same order on every system."""
    try:
        entries = [path for path in directory.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{directory}: cannot be listed ({error.strerror})") from error
    return sorted(entries)


def _place(picture: Picture, directory: Path) -> bytes:
    return os.fsencode(picture.path.relative_to(directory).as_posix())
