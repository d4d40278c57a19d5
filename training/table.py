"""Figures as a table for people; programs read the JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

_PASSES = (
    ("validation", "validation"),
    ("validation, with flip", "validation_flip"),
    ("test", "test"),
    ("test, with flip", "test_flip"),
    ("majority", "test_majority"),
    ("majority, with flip", "test_majority_flip"),
)


def tabulate(figures: Mapping[str, Any], emotions: Sequence[str]) -> str:
    """Lay out what `export.measure` returns.

    Args:
        figures: Scores by split and pass, and the cost; whichever are there.
        emotions: Names for the recalls, in the labels' order.

    Returns:
        Lines of text: a row a split and pass, then recall per emotion, then the cost.
    """
    rows = [(name, figures[key]) for name, key in _PASSES if key in figures]
    lines = []
    if rows:
        lines.append(f"{'':22s}  faces  accuracy  macro-F1     ECE")
        lines += [
            f"{name:22s}  {s['faces']:5d}  {s['accuracy']:8.4f}  {s['macro_f1']:8.4f}"
            f"  {s['calibration_error']:6.4f}"
            for name, s in rows
        ]
        lines += ["", f"{'recall':22s}" + "".join(f"  {name:>9s}" for name in emotions)]
        lines += [
            f"{name:22s}" + "".join(f"  {recall:9.4f}" for recall in s["recall"])
            for name, s in rows
        ]
    if "cost" in figures:
        parameters, adds = figures["cost"]["parameters"], figures["cost"]["multiply_adds"]
        lines += ["", f"{parameters:,} parameters, {adds:,} multiply-adds a face"]
    return "\n".join(lines).strip("\n")
