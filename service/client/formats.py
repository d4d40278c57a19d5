"""Formats answers as text: a table for people, JSON lines and CSV for programs."""

import csv
import dataclasses
import io
import json
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.client.answers import Face, Prediction

_POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
_COLUMNS = (
    *("file", "faces", "face", "x", "y", "width", "height"),
    *("detection", "emotion", "confidence", "error"),
    *("faces_found", "truncated", "roll", "size", "sharpness", "brightness", "usable"),
    *(f"{point}_{axis}" for point in _POINTS for axis in "xy"),
)


_MAX_NAME_WIDTH = 80  # a longer name takes its own line's place only
_EMOTION_WIDTH = 9


@dataclass(frozen=True)
class Outcome:
    """The result for one file: an answer, or an error message."""

    file: Path
    answer: Prediction | str


def format_json(outcome: Outcome) -> str:
    """Return one JSON object, with `error` if there is no answer."""
    answer = outcome.answer
    body: dict[str, Any]
    body = {"error": answer} if isinstance(answer, str) else dataclasses.asdict(answer)
    return json.dumps({"file": str(outcome.file)} | body)


def format_csv(outcome: Outcome) -> str:
    """Return one row per face; without a face, one row with 0 faces or an `error`."""
    empty = dict.fromkeys(_COLUMNS, "") | {"file": outcome.file}
    answer = outcome.answer
    if isinstance(answer, str):
        return _rows([empty | {"error": answer}])
    of_picture = {
        "faces": len(answer.faces),
        "faces_found": answer.faces_found,
        "truncated": answer.truncated,
    }
    faces = [_cells(number, face) for number, face in enumerate(answer.faces)]
    return _rows([empty | of_picture | cells for cells in faces or [{}]])


def _cells(number: int, face: Face) -> dict[str, Any]:
    points = {
        f"{name}_{axis}": at
        for name, xy in face.landmarks.items()
        for axis, at in zip("xy", xy, strict=True)
    }
    answered = {"detection": face.detection, "emotion": face.emotion, "confidence": face.confidence}
    quality = dict(face.quality or {})
    return {"face": number, **dataclasses.asdict(face.box), **answered, "roll": face.roll} | {
        name: value for name, value in (quality | points).items() if name in _COLUMNS
    }


def _rows(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, _COLUMNS, lineterminator="\n").writerows(rows)
    return text.getvalue().removesuffix("\n")


@dataclass(frozen=True)
class Format:
    """The header, and the function that formats an outcome; empty text is not printed."""

    head: str
    write: Callable[[Outcome], str]


FORMATS: Final = ("csv", "json", "table")
"""The formats' names, as the command line takes them."""


def choose_format(name: str, files: Iterable[Path]) -> Format:
    """Return the format of a name for the answers about these files."""
    if name == "csv":
        return Format(",".join(_COLUMNS), format_csv)
    return Format("", format_json) if name == "json" else table_of(files)


def table_of(files: Iterable[Path]) -> Format:
    """Return a table with aligned columns: one line per face, one for a picture without."""
    widths = (_width(shown(str(file))) for file in files)
    width = max(_width("file"), *(one for one in widths if one <= _MAX_NAME_WIDTH), 0)

    def line(file: str, *cells: str) -> str:
        padding = " " * max(0, width - _width(file))
        return "  ".join([file + padding, *cells]).rstrip()

    def write(outcome: Outcome) -> str:
        answer, file = outcome.answer, shown(str(outcome.file))
        if isinstance(answer, str):
            return line(file, shown(answer))
        lines = [_table_cells(face) for face in answer.faces] or [("no face",)]
        if answer.truncated:
            lines.append((f"there may be more faces; {answer.faces_found} were found",))
        return "\n".join(line(file, *cells) for cells in lines)

    return Format(line("file", f"{'emotion':{_EMOTION_WIDTH}}", "confidence", "box"), write)


def _table_cells(face: Face) -> tuple[str, ...]:
    emotion = f"{shown(face.emotion):{_EMOTION_WIDTH}}"
    confidence = f"{face.confidence:{len('confidence')}.3f}"
    box = face.box
    if face.detection is None:  # the whole picture
        return emotion, confidence
    return emotion, confidence, f"{box.x},{box.y} {box.width}x{box.height}"


def shown(text: str) -> str:
    """Return a text for a terminal: what is not printable, as a line's end, is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) != 0 for c in text)
