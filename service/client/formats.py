"""Answers as text: a table for people, JSON lines and CSV for programs."""

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.client.answers import Prediction

_COLUMNS = ("file", "face", "x", "y", "width", "height", "emotion", "confidence", "error")


@dataclass(frozen=True)
class Outcome:
    """What became of one file: an answer, or in words why there is none."""

    file: Path
    answer: Prediction | str


def table(outcome: Outcome) -> str:
    """Return a line a face."""
    if isinstance(outcome.answer, str):
        return f"{outcome.file}: {outcome.answer}"
    faces = [f"{face.emotion} {face.confidence:.3f}" for face in outcome.answer.faces]
    return "\n".join(f"{outcome.file}: {face}" for face in faces or ["no face"])


def json_line(outcome: Outcome) -> str:
    """Return one JSON object, with `error` where there is no answer."""
    answer = outcome.answer
    body: dict[str, Any]
    body = {"error": answer} if isinstance(answer, str) else dataclasses.asdict(answer)
    return json.dumps({"file": str(outcome.file)} | body)


def csv_rows(outcome: Outcome) -> str:
    """Return a row a face; a row with `error` where there is no answer, none without a face."""
    if isinstance(outcome.answer, str):
        return _rows([(outcome.file, *[""] * 7, outcome.answer)])
    return _rows(
        [
            (outcome.file, n, *dataclasses.astuple(f.box), f.emotion, f.confidence, "")
            for n, f in enumerate(outcome.answer.faces)
        ]
    )


def _rows(rows: list[tuple[Any, ...]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().removesuffix("\n")


@dataclass(frozen=True)
class Format:
    """What comes before all outcomes, and the text of each; empty text is not printed."""

    head: str
    write: Callable[[Outcome], str]


FORMATS: Final[Mapping[str, Format]] = {
    "table": Format("", table),
    "json": Format("", json_line),
    "csv": Format(",".join(_COLUMNS), csv_rows),
}
"""The formats by name, as the command line takes them."""
