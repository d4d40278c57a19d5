"""Tests of `benchmarks.serving.campaign`: what is measured when."""

from pathlib import Path

import pytest

from benchmarks.serving.__main__ import parse_arguments
from benchmarks.serving.campaign import Campaign
from benchmarks.serving.server import Variant


@pytest.mark.parametrize("servers", ["ours,mosec,ray", "mosec"])
def test_the_ceiling_is_measured_right_before_what_is_compared_with_it(
    servers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the service with all cores: that is whose share of it is a goal."""
    arguments = ["--servers", servers, "--workers", "1,2", "--rounds", "5", "--out", str(tmp_path)]
    campaign = Campaign(parse_arguments(arguments))
    done: list[Variant | str] = []
    monkeypatch.setattr(campaign, "_measure_ceiling", lambda _: done.append("ceiling"))
    monkeypatch.setattr(campaign, "_with", lambda variant, *_: done.append(variant))

    campaign._throughput({"ours", "mosec", "ray"})

    after = [done[place + 1] for place, what in enumerate(done) if what == "ceiling"]
    assert len(after) == 5
    if "ours" in servers:
        assert set(after) == {Variant("ours", "ours", 2)}
