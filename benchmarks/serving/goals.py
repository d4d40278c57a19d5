"""What the service set out to reach beside its peers, and what was measured of it."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.serving.pictures import MAIN_CROP, MAIN_PHOTOGRAPH, PICTURES
from benchmarks.serving.rows import (
    Row,
    as_table,
    behaviours,
    loads_of,
    median_of,
    most_workers,
    ranked,
    shown,
    variant_of,
)
from benchmarks.serving.statistics import median


def goals(results: dict[str, Any]) -> str:
    """What the service set out to reach, and what was measured of it."""
    lines = []
    for goal, measured, wanted, reached in _goals(results):
        if not math.isnan(measured):
            lines.append([goal, shown(measured, 2), wanted, "yes" if reached else "**no**"])
    return as_table(["", "measured", "goal", "reached"], lines)


def _goals(results: dict[str, Any]) -> Iterable[tuple[str, float, str, bool]]:
    cores = most_workers(results)
    for title, picture, wanted in (
        ("photographs", MAIN_PHOTOGRAPH, {64: 1.5, 8: 1.5, 1: 1.15}),
        ("crops", MAIN_CROP, {64: 1.15, 8: 1.7, 1: 1.7}),
    ):
        rows = [r for r in loads_of(results, picture) if r["workers"] == cores]
        for connections, least in wanted.items():
            ratio = _ratio(rows, [r for r in rows if r["engine"] == "plain"], connections)
            text = f"{title}/s at {connections} conn., times those of whichever peer is best there"
            yield text, ratio, f"≥ {least}", ratio >= least
    best = best_peer(rows)
    for connections, least in {64: 1.0, 8: 1.5, 1: 1.5}.items():
        theirs = [r for r in rows if (r["peer"], r["engine"]) == (best, "ours")]
        ratio = _ratio(rows, theirs, connections)
        text = f"crops/s at {connections} conn., times those of the best peer with our engine"
        yield text, ratio, f"≥ {least}", ratio >= least
    yield from _latency_goals(results, rows)
    for raw, most in ((False, 0.7), (True, 0.5)):
        mine = [r for r in results["floor"] if r["peer"] == "ours" and r["form"] != raw]
        for picture in ("48", "256"):
            cpu = median([r["cpu_ms"] for r in mine if r["picture"] == picture])
            kind = "raw" if raw else "multipart"
            text = (
                f"CPU ms of a {kind} request, {PICTURES[picture].title}, engine that does nothing"
            )
            yield text, cpu, f"≤ {most}", cpu <= most
    for row in behaviours(results, "overload"):
        if row["peer"] == "ours":
            share = row["goodput_per_s"] / row["capacity_per_s"]
            yield "overload: goodput as a share of capacity", share, "≥ 0.9", share >= 0.9
            cores = results["machine"]["cores"]
            left = share * cores / (cores - row["generator_cores"])
            text = "overload: the same, of what the cores can do that the generator left"
            yield text, left, "≥ 0.9", left >= 0.9
            if row["rejected_p99_ms"] is not None:  # some were refused
                rejected, told = row["rejected_p99_ms"], row["retry_after_share"]
                yield "overload: p99 of refusals, ms", rejected, "≤ 50", rejected <= 50
                yield "overload: refusals with Retry-After", told, "1", told == 1
            accepted = row["accepted_p99_ms"] or math.inf
            yield "overload: p99 of what was accepted, ms", accepted, "≤ 10 000", accepted <= 10_000
            again = math.inf if row["well_again_s"] is None else row["well_again_s"]
            yield "overload: well again after, s", again, "≤ 2", again <= 2


def _latency_goals(
    results: dict[str, Any], rows: Sequence[Row]
) -> Iterable[tuple[str, float, str, bool]]:
    ours = [r for r in rows if r["peer"] == "ours"]
    best = min(
        (
            median_of([r for r in rows if variant_of(r) == v], "p99_ms", 64)
            for v in ranked([r for r in rows if r["engine"] == "plain"], 64)[:1]
        ),
        default=math.nan,
    )
    p99 = median_of(ours, "p99_ms", 64)
    yield "crops: p99 at 64 connections, ms", p99, f"≤ {shown(best)}, the best peer's", p99 <= best
    shares, over = [], []
    for row in results["ceiling"]:
        mine = [r for r in ours if r["round"] == row["round"]]
        if row["engine"] == "ours" and mine:  # of the same minute: machines drift
            most = row["requests_per_s"]["256"]
            shares.append(median_of(mine, "requests_per_s", 64) / most)
            least = row["alone"]["forward_ms"]["1"] + row["alone"]["decode_ms"]["256"]
            over.append(median_of(mine, "p50_ms", 1) - least)
    share, wait = median(shares), median(over)
    yield "crops: share of the ceiling at 64 connections", share, "≥ 0.80", share >= 0.8
    yield "crops: p50 at 1 connection beyond decode + forward, ms", wait, "≤ 1.0", wait <= 1.0


def best_peer(rows: Sequence[Row]) -> str | None:
    """Return the peer that answers most at 64 connections as it is; None where none did."""
    plain = [r for r in rows if r["peer"] != "ours" and r["engine"] == "plain"]
    return next((variant.peer for variant in ranked(plain, 64)), None)


def _ratio(rows: Sequence[Row], theirs: Sequence[Row], connections: int) -> float:
    """Return how many times as many ours answers as the best of others; NaN without both."""
    ours = median_of([r for r in rows if r["peer"] == "ours"], "requests_per_s", connections)
    rates = [
        median_of([r for r in theirs if variant_of(r) == v], "requests_per_s", connections)
        for v in dict.fromkeys(map(variant_of, theirs))
        if v.peer != "ours"
    ]
    rates = [rate for rate in rates if not math.isnan(rate)]
    return ours / max(rates) if rates else math.nan
