"""Cuts faces out of folders of photographs, as serving does: `python -m service crop`.

What is trained on or measured on then looks like what is served. The folders stay as they are, so
a folder a class gives a folder of faces a class, which `python -m training` reads.
"""

import argparse
import csv
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final, Literal

from PIL import Image
from tqdm import tqdm

from service.app import open_detector, read_detector
from service.config import Settings, SettingsError
from service.errors import ImageTooLarge, ServiceError
from service.host import count_cores
from service.pictures.decode import prepare_pillow
from service.pictures.faces import Face
from service.pictures.finder import FaceFinder
from service.pictures.search import FaceSearch
from training.model.checkpoint import load_checkpoint
from training.model.manifest import CheckpointError

REPORT_FILE: Final = "crops.csv"
"""What became of each file, in the destination."""

Result = Literal["face", "whole picture", "kept", "no face", "refused"]

_MEANINGS: Final[Mapping[Result, str]] = {
    "face": "faces cut",
    "whole picture": "small square pictures taken whole, as serving takes them",
    "kept": "faces of an earlier run that its report does not name, kept",
    "no face": "without a face",
    "refused": "not readable",
}
_NAMED = 3  # files that a line of the summary names
_LITTER = "__MACOSX"


class CropError(Exception):
    """Nothing can be cut; the message says why and what to do."""


@dataclass(frozen=True)
class Outcome:
    """What became of one file; a row of the report.

    Attributes:
        picture: Its path in the source.
        result: What was done.
        crop: Path of the face in the destination; empty without one.
        faces_found: How many faces the picture has; the largest was cut.
        size_px: Longer side of the face in the picture; 0 where none was cut by this run.
        usable: Whether the face is large, sharp and lit enough, by the service's measure.
        reason: Why a file was refused.
    """

    picture: str
    result: Result
    crop: str = ""
    faces_found: int = 0
    size_px: int = 0
    usable: bool = False
    reason: str = ""


class Cropper:
    """Cuts the face out of each file of a folder; any thread may call it."""

    def __init__(
        self, source: Path, destination: Path, finder: FaceFinder, max_image_bytes: int
    ) -> None:
        """Prepare for one folder.

        Args:
            source: The photographs, in folders or not.
            destination: Where faces go, in folders of the same names.
            finder: Of the service.
            max_image_bytes: Most bytes of a file.
        """
        self._source, self._destination, self._finder = source, destination, finder
        self._max_bytes = max_image_bytes

    def target(self, file: Path) -> Path:
        """Return where the face of a file goes: its whole name, so that none meets another."""
        inner = file.relative_to(self._source)
        return self._destination / inner.with_name(f"{inner.name}.png")

    def name(self, file: Path) -> str:
        """Return what the report calls a file."""
        return file.relative_to(self._source).as_posix()

    def keep(self, file: Path, before: Mapping[str, Outcome]) -> Outcome:
        """Return the row of a face that was cut before.

        Args:
            file: In the source.
            before: Rows of an earlier report, by the picture.
        """
        crop = self.target(file).relative_to(self._destination).as_posix()
        unknown = Outcome(self.name(file), "kept", crop)
        return before.get(unknown.picture, unknown)

    def crop(self, file: Path) -> Outcome:
        """Cut the largest face of a file, and write it.

        Args:
            file: In the source.

        Raises:
            OSError: The face cannot be written.
        """
        picture = self.name(file)
        try:
            found = self._finder.find(self._read(file), FaceSearch())
        except ServiceError as error:
            return Outcome(picture, "refused", reason=error.detail)
        except OSError as error:
            return Outcome(picture, "refused", reason=error.strerror or "It cannot be opened.")
        if not found.faces:
            return Outcome(picture, "no face")
        face, target = found.faces[0], self.target(file)
        _write(face, target)
        crop = target.relative_to(self._destination).as_posix()
        if face.quality is None:
            return Outcome(picture, "whole picture", crop, 1, usable=True)
        size, usable = round(face.quality.size), face.quality.usable
        return Outcome(picture, "face", crop, found.faces_found, size, usable)

    def _read(self, file: Path) -> bytes:
        if file.stat().st_size > self._max_bytes:
            raise ImageTooLarge(f"More than {self._max_bytes} bytes; FER_MAX_IMAGE_BYTES says so.")
        return file.read_bytes()


def find_files(source: Path) -> list[Path]:
    """List the files below a folder by their paths, without hidden ones.

    Raises:
        CropError: A folder cannot be listed, or there are no files.
    """

    def fail(error: OSError) -> None:
        raise CropError(f"{error.filename}: cannot be listed ({error.strerror})") from error

    files = []
    for folder, folders, names in os.walk(source, onerror=fail):
        folders[:] = [name for name in folders if not _is_litter(name)]
        paths = (Path(folder, name) for name in names if not _is_litter(name))
        files += [path for path in paths if path.is_file()]
    if not files:
        raise CropError(f"{source}: no files, expected photographs, in a folder for each class")
    return sorted(files)


def crop_all(cropper: Cropper, files: Sequence[Path], threads: int) -> Iterator[Outcome]:
    """Cut faces in several threads; yields in the order of the files.

    Args:
        cropper: Of their folder.
        files: From `find_files`.
        threads: How many.

    Raises:
        OSError: A face cannot be written.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        yield from pool.map(cropper.crop, files)
    finally:
        pool.shutdown(cancel_futures=True)


def write_report(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the report as csv; it appears whole or not at all.

    Raises:
        OSError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Outcome)])
        writer.writeheader()
        writer.writerows(map(asdict, outcomes))
    part.replace(path)


def summarise(outcomes: Sequence[Outcome]) -> list[str]:
    """Return lines for people: each result in each folder, and files by name that gave no face."""
    folders = sorted({_folder(outcome) for outcome in outcomes})
    counted = Counter((_folder(outcome), outcome.result) for outcome in outcomes)
    width = max(map(len, folders), default=0)
    lines = [f"{'':{width}s}" + "".join(f"  {result:>13s}" for result in _MEANINGS)]
    for name in folders:
        cells = "".join(f"  {counted[name, result]:13,d}" for result in _MEANINGS)
        lines.append(f"{name:{width}s}{cells}")
    for result, meaning in _MEANINGS.items():
        found = [outcome for outcome in outcomes if outcome.result == result]
        names = f" ({_name_some(found)})" if found and not found[0].crop else ""
        lines += [f"{meaning}: {len(found):,}{names}"] if found else []
    several = sum(outcome.faces_found > 1 for outcome in outcomes)
    poor = sum(outcome.result == "face" and not outcome.usable for outcome in outcomes)
    lines += [f"pictures of several faces, the largest was cut: {several:,}"] if several else []
    lines += [f"faces that are small, blurred, dark or glaring: {poor:,}"] if poor else []
    return lines


def main(arguments: Sequence[str]) -> int:
    """Cut the faces of a folder.

    Args:
        arguments: Those after `crop`.

    Returns:
        The exit status: 0 done, 2 a wrong argument, setting or input, 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        return _run(options.source, options.destination, options.resume)
    except (CheckpointError, CropError, SettingsError) as error:
        print(f"crop: {error}", file=sys.stderr)
    except OSError as error:
        where = error.filename or options.destination
        print(f"crop: {where}: {error.strerror or error}", file=sys.stderr)
    return 2


def _run(source: Path, destination: Path, resume: bool) -> int:
    _check(source, destination, resume)
    files = find_files(source)
    settings = Settings.from_environ(os.environ)
    cropper = Cropper(source, destination, _open_finder(settings), settings.max_image_bytes)
    report = destination / REPORT_FILE
    before = _read_report(report) if resume else {}
    destination.mkdir(parents=True, exist_ok=True)
    done = [file for file in files if cropper.target(file).exists()]
    outcomes = [cropper.keep(file, before) for file in done]
    rest = sorted(set(files).difference(done))
    stopped = _crop_rest(cropper, rest, settings.decode_threads or count_cores(), outcomes)
    write_report(report, sorted(outcomes, key=lambda outcome: outcome.picture))
    lines = [*summarise(outcomes), f"faces: {destination}", f"each file's result: {report}"]
    print(*lines, sep="\n")
    return 130 if stopped else 0


def _crop_rest(
    cropper: Cropper, files: Sequence[Path], threads: int, outcomes: list[Outcome]
) -> bool:
    """Add what became of each file; return whether Ctrl-C stopped it."""
    try:
        for outcome in tqdm(crop_all(cropper, files, threads), total=len(files), disable=None):
            outcomes.append(outcome)
    except KeyboardInterrupt:
        print("\nstopped; the same command with --resume goes on", file=sys.stderr)
        return True
    return False


def _check(source: Path, destination: Path, resume: bool) -> None:
    """Refuse folders that would be mixed or overwritten."""
    if not source.is_dir():
        raise CropError(f"{source}: no such folder")
    inner, outer = destination.resolve(), source.resolve()
    if inner == outer or outer in inner.parents or inner in outer.parents:
        raise CropError(f"{destination}: give a folder that is neither in {source} nor around it")
    if destination.is_dir() and any(destination.iterdir()) and not resume:
        raise CropError(
            f"{destination}: not empty; give another folder, or --resume to keep the faces there "
            "and cut those that are missing"
        )


def _open_finder(settings: Settings) -> FaceFinder:
    weights = read_detector(settings)
    if weights is None:
        raise CropError("FER_DETECTOR is none, but nothing can be cut without the face detector")
    prepare_pillow(settings.max_image_pixels)
    spec = load_checkpoint(settings.checkpoint).manifest.input_spec
    return FaceFinder(spec, settings.max_image_pixels, open_detector(weights, settings))


def _write(face: Face, target: Path) -> None:
    """Write a face as PNG; the file appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    Image.fromarray(face.pixels).save(part, "PNG")
    part.replace(target)


def _read_report(path: Path) -> dict[str, Outcome]:
    """Return the rows of an earlier report, by the picture; none if there is no such report."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [
                Outcome(
                    row["picture"],
                    next(known for known in _MEANINGS if known == row["result"]),
                    row["crop"],
                    int(row["faces_found"]),
                    int(row["size_px"]),
                    row["usable"] == "True",
                )
                for row in csv.DictReader(file)
                if row["crop"]
            ]
    except (OSError, ValueError, KeyError, TypeError, StopIteration, csv.Error):
        return {}
    return {row.picture: row for row in rows}


def _folder(outcome: Outcome) -> str:
    return outcome.picture.rpartition("/")[0] or "."


def _name_some(outcomes: Sequence[Outcome]) -> str:
    names = ", ".join(outcome.picture for outcome in outcomes[:_NAMED])
    return names + (f" and {len(outcomes) - _NAMED} more" if len(outcomes) > _NAMED else "")


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name == _LITTER


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service crop",
        description="Cut the largest face out of each photograph of a folder, as serving does. "
        "Folders keep their names. FER_CHECKPOINT, FER_DETECTOR and the bounds of pictures hold.",
    )
    parser.add_argument("source", type=Path, help="photographs, in a folder for each class")
    parser.add_argument("destination", type=Path, help="where faces go: a new or empty folder")
    parser.add_argument(
        "--resume", action="store_true", help="keep the faces that are there, cut the others"
    )
    return parser
