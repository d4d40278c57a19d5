"""Where the annotated and explained copies of pictures go, and how they are written."""

import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Copies:
    """The copy of each picture, by the picture's path; empty where none was asked for."""

    drawn: Mapping[Path, Path]
    explained: Mapping[Path, Path]


def plan_copies(files: Sequence[Path], draw: Path | None, explain: Path | None) -> Copies:
    """Say where copies go: the folders of the copies mirror those of the pictures.

    Args:
        files: The pictures; `-` for standard input.
        draw: The folder of annotated copies; None for none.
        explain: The folder of explained copies; None for none.

    Raises:
        ValueError: A copy would overwrite a picture or another copy.
    """
    # In one folder both copies of a picture would have the same name.
    is_shared = draw and explain and draw.resolve() == explain.resolve()
    drawn = _targets(files, draw, ".png")
    explained = _targets(files, explain, ".explained.png" if is_shared else ".png")
    taken = {os.path.realpath(file) for file in files}
    for target in (*drawn.values(), *explained.values()):
        if (place := os.path.realpath(target)) in taken:
            raise ValueError(
                f"{target} would be written over a picture or another copy; choose another folder"
            )
        taken.add(place)
    return Copies(drawn, explained)


def prepare_folder(folder: Path) -> None:
    """Make a folder, and try to write to it.

    Raises:
        OSError: It cannot be made, or not be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def write_copy(target: Path, content: bytes) -> None:
    """Write a copy, and nothing if it cannot be written whole.

    Raises:
        OSError: It cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        try:
            file.write(content)
            file.flush()
        except OSError:
            with contextlib.suppress(OSError):
                target.unlink()
            raise


def _targets(files: Sequence[Path], folder: Path | None, suffix: str) -> dict[Path, Path]:
    if folder is None:
        return {}
    # Normal paths: `..` in one would lead out of the folder.
    places = {file: Path(os.path.abspath(_named(file))) for file in files}
    top = os.path.commonpath([place.parent for place in places.values()])
    inside = {file: place.relative_to(top) for file, place in places.items()}
    return {file: folder / path.with_name(path.name + suffix) for file, path in inside.items()}


def _named(file: Path) -> Path:
    return Path("stdin") if file == Path("-") else file
