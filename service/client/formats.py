"""Formats answers as text: a table for people, JSON lines and CSV for programs."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Mapping
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


@dataclass(frozen=True)
class Outcome:
    """The result for one file: an answer, or an error message."""

    file: Path
    answer: Prediction | str


def format_table(outcome: Outcome) -> str:
    """Return one line per face, with its box if faces were searched for."""
    if isinstance(outcome.answer, str):
        return f"{outcome.file}: {outcome.answer}"
    lines = [_described(face) for face in outcome.answer.faces] or ["no face"]
    if outcome.answer.truncated:
        lines.append(f"there may be more faces; {outcome.answer.faces_found} were found")
    return "\n".join(f"{outcome.file}: {line}" for line in lines)


def _described(face: Face) -> str:
    box, named = face.box, f"{face.emotion} {face.confidence:.3f}"
    if face.detection is None:
        return named
    return f"{named} at {box.x},{box.y} {box.width}x{box.height}"


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


FORMATS: Final[Mapping[str, Format]] = {
    "table": Format("", format_table),
    "json": Format("", format_json),
    "csv": Format(",".join(_COLUMNS), format_csv),
}
"""The formats by name, as the command line takes them."""
