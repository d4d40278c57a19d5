import math

import pytest

from benchmarks.serving.load import LoadError, parse
from benchmarks.serving.statistics import median, percentile, spread

OUTPUT = """Running 3s test @ http://127.0.0.1:1/predict
  1 threads and 8 connections
Requests/sec:    123.4

RESULT {"seconds":3.004,"requests":371,"p50_ms":60.1,"p99_ms":99.9,"p999_ms":120.0,"refused":2}
"""


def test_the_line_of_the_script_is_found_in_what_wrk_prints() -> None:
    found = parse(OUTPUT)

    assert found["requests"] == 371
    assert found["p99_ms"] == 99.9


def test_without_that_line_the_error_says_what_wrk_said() -> None:
    with pytest.raises(LoadError, match="unable to connect"):
        parse("unable to connect to 127.0.0.1:1 Connection refused")


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100), (0.0, 1), (0.001, 1)]
)
def test_percentiles_are_values_that_were_seen(share: float, expected: float) -> None:
    assert percentile(list(range(100, 0, -1)), share) == expected


def test_percentiles_and_medians_of_little() -> None:
    assert percentile([7.0], 0.99) == 7.0
    assert math.isnan(percentile([], 0.5))
    assert math.isnan(median([]))
    assert median([3.0, 1.0]) == 2.0
    assert median([3.0, 1.0, 9.0]) == 3.0


def test_spread_is_the_range_as_a_share_of_the_median() -> None:
    assert spread([90.0, 100.0, 110.0]) == pytest.approx(0.2)
    assert spread([5.0]) == 0.0
