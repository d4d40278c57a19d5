"""What the command was given, as pictures: files, folders, patterns and standard input."""

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

STANDARD_INPUT = "-"
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp"),
    *(".png", ".apng", ".webp", ".avif", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
)
"""What is taken from a folder. A file that is named itself is always taken."""

_RESOURCE_FORK = "._"  # macOS writes `._photo.jpg` beside `photo.jpg` on disks of others


@dataclass(frozen=True)
class Source:
    """One picture.

    Attributes:
        file: Its path, as it is shown; `-` for standard input.
        content: What standard input had; None for a file, which is read when it is its turn.
    """

    file: Path
    content: bytes | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """Return the picture's bytes; raises `OSError` if they cannot be read."""
        return self.file.read_bytes() if self.content is None else self.content


@dataclass
class Found:
    """What was found.

    Attributes:
        sources: The pictures, each once, in the order named; missing files are among them.
        skipped: How many files of folders were not taken, by suffix.
        unmatched: Patterns that no file matches.
    """

    sources: list[Source] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    unmatched: list[str] = field(default_factory=list)


def find_sources(names: Iterable[str]) -> Found:
    """Find the pictures; waits for standard input if it is named.

    Raises:
        ValueError: A name is empty, or there is no standard input.
    """
    found = Found()
    sources: dict[str, Source] = {}
    for name in names:
        if name == STANDARD_INPUT:
            if name not in sources:
                sources[name] = Source(Path(name), _read_standard_input())
            continue
        for file in _expand(name, found):
            if str(file) == STANDARD_INPUT:
                file = file.absolute()  # named as `./-`
            sources.setdefault(os.path.abspath(file), Source(file))
    found.sources = list(sources.values())
    return found


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """Say how many files were skipped, e.g. "3 files skipped: .heic 2, .txt 1"."""
    total = sum(skipped.values())
    kinds = ", ".join(f"{kind} {count}" for kind, count in Counter(skipped).most_common())
    return f"{total} {'file' if total == 1 else 'files'} skipped: {kinds}"


def _read_standard_input() -> bytes:
    if sys.stdin is None:
        raise ValueError("there is no standard input to read '-' from")
    try:
        return sys.stdin.buffer.read()
    except OSError as error:
        raise ValueError(f"standard input cannot be read: {error.strerror}") from None


def _expand(name: str, found: Found) -> Iterator[Path]:
    if not name:
        raise ValueError("the name of a picture is empty")
    if glob.has_magic(name) and not os.path.lexists(name):
        matches = sorted(glob.glob(name, recursive=True))
        found.unmatched += [] if matches else [name]
    else:
        matches = [name]
    for match in matches:
        # os.path, not Path: it says no, instead of raising, where a folder may not be looked into.
        yield from _walk(match, found) if os.path.isdir(match) else [Path(match)]


def _walk(folder: str, found: Found) -> Iterator[Path]:
    """Yield a folder's pictures, and each folder in it that cannot be read, for an error later."""
    unreadable: list[Path] = []
    files: list[Path] = []
    for place, _, names in os.walk(
        folder, onerror=lambda error: unreadable.append(Path(error.filename))
    ):
        for file in (Path(place, name) for name in names):
            if kind := _skipped(file):
                found.skipped[kind] += 1
            else:
                files.append(file)
    yield from sorted(files + unreadable)


def _skipped(file: Path) -> str | None:
    """Return what a file counts as if it is not taken, None if it is."""
    if file.name.startswith(_RESOURCE_FORK):
        return f"{_RESOURCE_FORK}*"
    if file.suffix.lower() not in SUFFIXES:
        return file.suffix.lower() or "without suffix"
    # Reading a pipe could wait forever. A link to nothing is taken, and told to be missing.
    is_special = os.path.exists(file) and not os.path.isfile(file)
    return "not a file" if is_special else None
