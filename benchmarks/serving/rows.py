"""Rows of the results: picked, ranked, reduced to medians, and shown as Markdown."""

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.serving.pictures import MAIN_CROP, MAIN_PHOTOGRAPH
from benchmarks.serving.server import Variant
from benchmarks.serving.statistics import median

Row = dict[str, Any]


def main_picture(results: dict[str, Any]) -> str:
    """Return what the servers are compared by first: a photograph, or in older results a crop."""
    photographs = any(row["picture"] == MAIN_PHOTOGRAPH for row in results["loads"])
    return MAIN_PHOTOGRAPH if photographs else MAIN_CROP


def loads_of(results: dict[str, Any], picture: str) -> list[Row]:
    """Return the loads of a picture by multipart, which all variants can be compared by."""
    return [row for row in results["loads"] if row["picture"] == picture and row["form"]]


def variant_of(row: Row) -> Variant:
    return Variant(row["peer"], row["engine"], row["workers"])


def ranked(rows: Sequence[Row], connections: int) -> list[Variant]:
    """Return the variants of rows of one picture, of most workers and then the fastest first."""

    def rate(variant: Variant) -> float:
        mine = [r for r in rows if variant_of(r) == variant]
        found = median_of(mine, "requests_per_s", connections)
        return 0.0 if math.isnan(found) else found

    return sorted(dict.fromkeys(map(variant_of, rows)), key=lambda v: (-v.workers, -rate(v)))


def median_of(rows: Sequence[Row], key: str, connections: int) -> float:
    """Return the median over the rounds; NaN where that was not measured."""
    return median([r[key] for r in rows if r["connections"] == connections])


def behaviours(results: dict[str, Any], what: str) -> list[Row]:
    return [row for row in results["behaviour"] if row["what"] == what]


def ceilings(results: dict[str, Any]) -> list[Row]:
    """Return a row an engine: of every number the median over the rounds."""
    rows = results["ceiling"]
    found = []
    for engine in dict.fromkeys(row["engine"] for row in rows):
        row = _medians([row for row in rows if row["engine"] == engine])
        found.append(row | {"best_batch": min(row["forward_ms"], key=row["forward_ms"].get)})
    return found


def _medians(rows: Sequence[Any]) -> Any:
    first = rows[0]
    if isinstance(first, dict):
        return {key: _medians([row[key] for row in rows]) for key in first}
    return first if isinstance(first, str) else median(rows)


def most_workers(results: dict[str, Any]) -> int:
    """Return the larger worker count: all cores, where both were measured."""
    return max((r["workers"] for r in results["loads"]), default=results["machine"]["cores"])


def hardware(machine: dict[str, Any]) -> str:
    """Say what it was measured on: the cores, and the GPU where one was used."""
    gpu = machine.get("gpu")
    return f"{machine['cores']} cores of {machine['cpu']}" + (f" and one {gpu}" if gpu else "")


def shown(value: float | None, digits: int | None = None) -> str:
    """Return a number with three digits or so; "-" where there is none."""
    if not isinstance(value, int | float) or math.isnan(value):
        return "-"
    if digits is None:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}".replace(",", " ")


def as_table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Return Markdown; nothing where there are no lines."""
    if not lines:
        return ""
    rows = ["| " + " | ".join(map(str, row)) + " |" for row in (head, *lines)]
    return "\n".join([rows[0], "|---" * len(head) + "|", *rows[1:]])
