"""Formats scores as a text table."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import compress
from typing import Any

_PASSES = (
    ("validation", "validation"),
    ("validation, with flip", "validation_flip"),
    ("test", "test"),
    ("test, with flip", "test_flip"),
    ("majority", "test_majority"),
    ("majority, with flip", "test_majority_flip"),
    ("wild", "wild"),
    ("wild, with flip", "wild_flip"),
)
_PRIORS = ("training", "balanced", "uniform")


def tabulate(figures: Mapping[str, Any], emotions: Sequence[str]) -> str:
    """Format the scores that `export.measure` returns.

    Args:
        figures: Scores by split and pass, and the cost; any of them may be missing.
        emotions: The names of the recalls, in the labels' order.

    Returns:
        Lines of text: a row for each split and pass and for each split and prior, then the recall
        of each emotion, then the cost. The cell of an emotion without faces in a split is empty;
        an emotion without faces in all splits has no column.
    """
    rows = [(name, figures[key]) for name, key in _PASSES if key in figures]
    rows += [
        (f"{name}, {prior} prior", figures["priors"][prior][key])
        for prior in _PRIORS
        for name, key in _PASSES
        if key in figures.get("priors", {}).get(prior, {})
    ]
    lines = []
    if rows:
        lines.append(f"{'':26s}  faces  mean recall  accuracy  macro-F1     ECE")
        lines += [
            f"{name:26s}  {s['faces']:5d}  {_mean(s['recall']):11.4f}  {s['accuracy']:8.4f}"
            f"  {s['macro_f1']:8.4f}  {s['calibration_error']:6.4f}"
            for name, s in rows
        ]
        there = [any(r is not None for r in column) for column in _recalls(rows)]
        widths = [max(9, len(name)) for name in compress(emotions, there)]
        heads = zip(compress(emotions, there), widths, strict=True)
        lines += ["", f"{'recall':26s}" + "".join(f"  {name:>{width}s}" for name, width in heads)]
        for name, s in rows:
            cells = map(_cell, compress(s["recall"], there), widths)
            lines.append(f"{name:26s}" + "".join(cells))
    if "cost" in figures:
        parameters, adds = figures["cost"]["parameters"], figures["cost"]["multiply_adds"]
        lines += ["", f"{parameters:,} parameters, {adds:,} multiply-adds a face"]
    return "\n".join(lines).strip("\n")


def _mean(recalls: Sequence[float | None]) -> float:
    return statistics.fmean(recall for recall in recalls if recall is not None)


def _recalls(rows: Sequence[tuple[str, Any]]) -> Iterator[tuple[float | None, ...]]:
    """Yield for each emotion its recall in every row."""
    return zip(*(scores["recall"] for _, scores in rows), strict=True)


def _cell(recall: float | None, width: int) -> str:
    return f"  {recall:{width}.4f}" if recall is not None else " " * (width + 2)
