"""Tests of `benchmarks.serving.campaign`: what is measured when."""

import itertools

from benchmarks.serving.campaign import round_order
from benchmarks.serving.server import Variant

OURS = [Variant("ours", "ours", workers) for workers in (1, 2)]
MOSEC = [Variant("mosec", "plain", workers) for workers in (1, 2)]


def test_the_ceiling_is_measured_right_before_what_is_compared_with_it() -> None:
    """Of the service with all cores: that is whose share of it is a goal."""
    for variants in itertools.permutations([*OURS, *MOSEC]):
        order = list(round_order(list(variants), 2))
        assert [step for step in order if step is not None] == list(variants)
        assert order.count(None) == 1
        assert order[order.index(None) + 1] == OURS[1]


def test_the_ceiling_is_measured_first_where_nothing_is_compared_with_it() -> None:
    assert list(round_order(MOSEC, 2)) == [None, *MOSEC]
    assert list(round_order([], 2)) == []
