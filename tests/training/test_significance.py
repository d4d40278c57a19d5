from typing import Any

import pytest

from training.ablation import ROWS
from training.significance import (
    CLAIMS,
    STN_PAIRS,
    interval,
    judge,
    mean_geometry,
    summarise,
    summarise_geometry,
)


def results(**accuracies: tuple[float, ...]) -> dict[str, list[dict[str, Any]]]:
    """Made-up results; rows that are not named have 0.60, 0.61, 0.62."""
    named = {name.replace("_", "+"): values for name, values in accuracies.items()}

    def result(accuracy: float) -> dict[str, Any]:
        figures = {"accuracy": accuracy, "macro_f1": accuracy}
        point = {"level": 15.0, **figures}
        return {
            "parameters": 10,
            "multiply_adds": 20,
            "validation": figures,
            "test": figures,
            "geometry": {"rotation (degrees)": [point]},
        }

    return {row.name: [*map(result, named.get(row.name, (0.60, 0.61, 0.62)))] for row in ROWS}


def test_interval_is_students() -> None:
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert high - mean == pytest.approx(4.303 / 3**0.5)  # deviation 1, two degrees of freedom
    assert mean - low == pytest.approx(high - mean)


def test_verdicts() -> None:
    said = {
        v.comparison.split(" against ")[0]: v.says
        for v in judge(
            results(
                stn_gelu=(0.64, 0.651, 0.66),  # four points better on each seed
                channel_gelu=(0.56, 0.571, 0.58),  # four points worse
            )
        )
    }
    assert said["stn+gelu"] == "holds"
    assert said["channel+gelu"] == "does not hold"
    assert said["gelu"] == "cannot be told"


def test_summary_has_every_row_and_claim() -> None:
    table = summarise(results())
    for row in ROWS:
        assert f"| {row.name} | 0.6100 ± 0.0100 |" in table
    for claim in CLAIMS:
        assert claim in table


def test_every_claim_compares_rows_of_the_table() -> None:
    names = {row.name for row in ROWS}
    assert {name for pairs in CLAIMS.values() for pair in pairs for name in pair} <= names
    assert {name for pair in STN_PAIRS for name in pair} <= names


def test_geometry_has_a_gain_for_each_level() -> None:
    table = summarise_geometry(results(stn_gelu=(0.70, 0.72, 0.74)))
    head, _, row = table.splitlines()
    assert "gelu → stn+gelu" in head
    # Paired by seed: 0.10, 0.11, 0.12 without doubt; the other pair is equal.
    assert row.startswith(
        "| rotation (degrees) | 15 | 0.610 → 0.720 | +0.110 (+0.085 to +0.135) holds"
    )
    assert row.endswith("| 0.610 → 0.610 | +0.000 (+0.000 to +0.000) cannot be told |")


def test_geometry_is_averaged_over_the_seeds() -> None:
    found = mean_geometry(results(relu=(0.3, 0.5)))
    assert set(found) == {row.name for row in ROWS}
    (point,) = found["relu"]["rotation (degrees)"]
    assert point == {"level": 15.0, "accuracy": pytest.approx(0.4)}
