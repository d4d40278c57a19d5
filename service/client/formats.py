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

_COLUMNS = (
    *("file", "faces", "face", "x", "y", "width", "height"),
    *("detection", "emotion", "confidence", "error"),
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
    faces = [_described(face) for face in outcome.answer.faces]
    return "\n".join(f"{outcome.file}: {face}" for face in faces or ["no face"])


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
    if isinstance(outcome.answer, str):
        return _rows([(outcome.file, *[""] * 9, outcome.answer)])
    faces = outcome.answer.faces
    if not faces:
        return _rows([(outcome.file, 0, *[""] * 9)])
    return _rows([(outcome.file, len(faces), n, *_cells(f), "") for n, f in enumerate(faces)])


def _cells(face: Face) -> tuple[Any, ...]:
    return (*dataclasses.astuple(face.box), face.detection, face.emotion, face.confidence)


def _rows(rows: list[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
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
