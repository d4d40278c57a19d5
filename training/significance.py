"""Tests the paper's claims with the results of an ablation: confidence intervals and tables."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from training.ablation import ROWS, Results
from training.robustness import Curves

# Two-sided 95 % quantiles of Student's t, by degrees of freedom.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


CLAIMS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "1. a spatial transformer first": (("stn+gelu", "gelu"),),
    "2. channel attention": (("channel+gelu", "gelu"),),
    "3. spatial attention": (("channel+spatial+gelu", "channel+gelu"),),
    "4. GELU": (("gelu", "relu"), ("stn+channel+spatial+gelu", "stn+channel+spatial+relu")),
}
"""For each claim the pairs of rows that differ only by it: with, without."""


STN_PAIRS: Final[tuple[tuple[str, str], ...]] = (
    ("stn+gelu", "gelu"),
    ("stn+channel+spatial+gelu", "channel+spatial+gelu"),
)
"""The pairs of rows that differ only by the spatial transformer: with, without."""


@dataclass(frozen=True)
class Verdict:
    """The result for one claim.

    Attributes:
        claim: Its text.
        comparison: The two rows.
        difference: Mean gain in test accuracy, paired by seed.
        low: Lower end of its 95 % confidence interval.
        high: Upper end.
        says: "holds", "does not hold" (the opposite holds) or "cannot be told".
    """

    claim: str
    comparison: str
    difference: float
    low: float
    high: float
    says: str


def summarise(results: Results) -> str:
    """Format the paper's table and the claims as Markdown.

    Args:
        results: From `ablate`.

    Returns:
        Two tables: the rows with means and standard deviations over the seeds, and the claims.
    """
    lines = [
        "| network | PublicTest | PrivateTest | macro-F1 | parameters | multiply-adds |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in results.items():
        cells = [_spread(runs, *key) for key in (("validation", "accuracy"), ("test", "accuracy"))]
        cells.append(_spread(runs, "test", "macro_f1"))
        cost = f"{runs[0]['parameters']:,} | {runs[0]['multiply_adds']:,}"
        lines.append(f"| {name} | {' | '.join(cells)} | {cost} |")
    lines += ["", "| claim | rows | gain | 95 % interval | |", "|---|---|---|---|---|"]
    lines += [
        f"| {v.claim} | {v.comparison} | {v.difference:+.4f} | {v.low:+.4f} to {v.high:+.4f} "
        f"| {v.says} |"
        for v in judge(results)
    ]
    return "\n".join(lines)


def summarise_geometry(results: Results) -> str:
    """Format the spatial transformer's gain on moved faces as Markdown.

    Args:
        results: From `ablate`, two seeds or more.

    Returns:
        A table of all levels of rotation, scale and shift. For both pairs of rows that differ only
        by the transformer, it has the accuracies without and with it and the gain's interval.
    """
    heads = " | ".join(f"{lacking} → {having} | gain" for having, lacking in STN_PAIRS)
    lines = [f"| test faces | level | {heads} |", "|---|---" + "|---|---" * len(STN_PAIRS) + "|"]
    for name, points in results[ROWS[0].name][0]["geometry"].items():
        for place, point in enumerate(points):
            cells = [_gain(results, *pair, name, place) for pair in STN_PAIRS]
            lines.append(f"| {name} | {point['level']:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def mean_geometry(results: Results) -> dict[str, Curves]:
    """Average the curves of each row's seeds.

    Args:
        results: From `ablate`.

    Returns:
        For each row by name its curves. A point has the level and the mean accuracy, 0 to 1.
    """
    return {
        name: {
            corruption: [
                {
                    "level": point["level"],
                    "accuracy": statistics.fmean(
                        run["geometry"][corruption][place]["accuracy"] for run in runs
                    ),
                }
                for place, point in enumerate(points)
            ]
            for corruption, points in runs[0]["geometry"].items()
        }
        for name, runs in results.items()
    }


def _gain(results: Results, having: str, lacking: str, name: str, place: int) -> str:
    """Return two cells: mean accuracies without and with, and the gain with its interval."""
    with_it, without = (
        [run["geometry"][name][place]["accuracy"] for run in results[row]]
        for row in (having, lacking)
    )
    mean, low, high = interval([a - b for a, b in zip(with_it, without, strict=True)])
    return (
        f"{statistics.fmean(without):.3f} → {statistics.fmean(with_it):.3f} | "
        f"{mean:+.3f} ({low:+.3f} to {high:+.3f}) {_verdict(low, high)}"
    )


def _verdict(low: float, high: float) -> str:
    return "holds" if low > 0 else "does not hold" if high < 0 else "cannot be told"


def judge(results: Results) -> list[Verdict]:
    """Compare the rows of each claim, paired by seed.

    Args:
        results: From `ablate`, two seeds or more.

    Returns:
        A verdict for each claim and pair of rows.
    """
    verdicts = []
    for claim, pairs in CLAIMS.items():
        for having, lacking in pairs:
            gains = [
                a["test"]["accuracy"] - b["test"]["accuracy"]
                for a, b in zip(results[having], results[lacking], strict=True)
            ]
            mean, low, high = interval(gains)
            comparison = f"{having} against {lacking}"
            verdicts.append(Verdict(claim, comparison, mean, low, high, _verdict(low, high)))
    return verdicts


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean and 95 % confidence interval of a mean by Student's t.

    Args:
        values: 2 to 11 of them.
    """
    mean = statistics.fmean(values)
    half = _T95[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def _spread(runs: Sequence[dict[str, Any]], part: str, figure: str) -> str:
    values = [run[part][figure] for run in runs]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.4f} ± {spread:.4f}"
