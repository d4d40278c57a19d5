"""From the results' JSON to tables in Markdown and one picture.

README quotes the tables through `tables`; nothing in them is written by hand.
`python -m benchmarks.serving.report FILE` prints them all.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

from benchmarks.serving.drawing import draw
from benchmarks.serving.goals import goals
from benchmarks.serving.pictures import MAIN_CROP, MAIN_PHOTOGRAPH, PICTURES
from benchmarks.serving.rows import (
    as_table,
    behaviours,
    ceilings,
    hardware,
    loads_of,
    main_picture,
    median_of,
    most_workers,
    ranked,
    shown,
    variant_of,
)
from benchmarks.serving.server import PEERS
from benchmarks.serving.statistics import median, spread


def write(results: dict[str, Any], folder: Path) -> None:
    """Write serving.md and, where there is throughput to show, serving.png beside the JSON."""
    text = "\n\n".join(f"## {name}\n\n{table}" for name, table in tables(results).items())
    (folder / "serving.md").write_text(f"# Serving, measured on {results['date']}\n\n{text}\n")
    if loads_of(results, main_picture(results)):
        draw(results, folder / "serving.png")


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return every table that the results have rows for, as Markdown, by its title."""
    found = {
        "Photographs": throughput(results, MAIN_PHOTOGRAPH),
        "Photographs by size": pictures(results, MAIN_PHOTOGRAPH),
        "Crops": throughput(results, MAIN_CROP),
        "Crops by size": pictures(results, MAIN_CROP),
        "CPU time of the server alone": floor(results),
        "Ceiling": ceiling(results),
        "Memory and start": starts(results),
        "Overload": overload(results),
        "When things go wrong": behaviour(results),
        "Goals": goals(results),
        "Problems": problems(results),
    }
    return {name: table for name, table in found.items() if table}


def throughput(results: dict[str, Any], picture: str, fewest_workers: int = 1) -> str:
    """A picture by multipart: requests a second by number of connections, then 64 in detail."""
    rows = [r for r in loads_of(results, picture) if r["workers"] >= fewest_workers]
    counts = sorted({r["connections"] for r in rows})
    detail = 64 if 64 in counts else max(counts, default=0)
    head = ["", "workers", *(f"{c} conn." for c in counts)]
    head += [f"{name} at {detail}" for name in ("p50 ms", "p99 ms", "p99.9 ms", "CPU ms")]
    lines = []
    for variant in ranked(rows, detail):
        mine = [r for r in rows if variant_of(r) == variant]
        cells = [median_of(mine, "requests_per_s", c) for c in counts]
        rest = [median_of(mine, key, detail) for key in ("p50_ms", "p99_ms", "p999_ms", "cpu_ms")]
        lines.append([variant.title, variant.workers, *map(shown, cells), *map(shown, rest)])
    return as_table(head, lines)


def summary(results: dict[str, Any]) -> str:
    """For README: throughput with all cores each, and on what it was measured."""
    machine, picture = results["machine"], main_picture(results)
    rounds = 1 + max(r["round"] for r in loads_of(results, picture))
    said = (
        f"{hardware(machine)}, {results['date']}: a JPEG of {PICTURES[picture].title} by "
        f"multipart, a worker a core, requests/s, medians of {rounds} rounds in turn."
    )
    return f"{said}\n\n{throughput(results, picture, most_workers(results))}"


def headline(results: dict[str, Any]) -> str:
    """Say what our server does with all cores, at 64 connections, and on what."""
    picture = main_picture(results)
    rows = [r for r in loads_of(results, picture) if r["workers"] >= most_workers(results)]
    mine = [r for r in rows if variant_of(r).peer == "ours"]
    rate, p99 = (median_of(mine, key, 64) for key in ("requests_per_s", "p99_ms"))
    machine = f"{hardware(results['machine'])}, {results['date']}"
    sent = f"{'crops' if PICTURES[picture].is_crop else 'photographs'} ({PICTURES[picture].title})"
    return f"{shown(rate)} {sent} a second with a p99 of {shown(p99)} ms ({machine})"


def pictures(results: dict[str, Any], main: str) -> str:
    """Requests a second (CPU ms) of pictures of `main`'s kind: all cores, mostly 64 connections."""
    names = [name for name, kind in PICTURES.items() if kind.is_crop == PICTURES[main].is_crop]
    rows = [
        r
        for r in results["loads"]
        if r["picture"] in names
        and r["connections"] == PICTURES[r["picture"]].connections
        and r["workers"] == most_workers(results)
    ]
    kinds = sorted({(names.index(r["picture"]), not r["form"]) for r in rows})
    head = [""]
    for place, raw in kinds:
        kind = PICTURES[names[place]]
        fewer = f", {kind.connections} conn." if kind.connections != 64 else ""
        head.append(f"{kind.title}, {'raw' if raw else 'form'}{fewer}")
    lines = []
    compared = [r for r in rows if r["picture"] == main and r["form"]] or rows
    for variant in ranked(compared, 64):
        cells = []
        for place, raw in kinds:
            mine = [
                r
                for r in rows
                if variant_of(r) == variant and r["picture"] == names[place] and r["form"] != raw
            ]
            rate, cpu = (median([r[key] for r in mine]) for key in ("requests_per_s", "cpu_ms"))
            cells.append("-" if math.isnan(rate) else f"{shown(rate)} ({shown(cpu)})")
        lines.append([variant.title, *cells])
    return as_table(head, lines)


def floor(results: dict[str, Any]) -> str:
    """CPU milliseconds a request with a model that does nothing; decoding is in them."""
    rows = results["floor"]
    kinds = [("48", True), ("48", False), ("256", True), ("256", False)]
    head = ["", *(f"{PICTURES[p].title}, {'form' if form else 'raw'}" for p, form in kinds)]
    lines = []
    for variant in dict.fromkeys(variant_of(r) for r in rows):
        cells = [
            median(
                [
                    r["cpu_ms"]
                    for r in rows
                    if (variant_of(r), r["picture"], r["form"]) == (variant, *kind)
                ]
            )
            for kind in kinds
        ]
        lines.append([PEERS[variant.peer].title, *(shown(c, 2) for c in cells)])
    lines.sort(key=lambda line: line[3])
    return as_table(head, lines)


def ceiling(results: dict[str, Any]) -> str:
    """What decoding and inference alone allow, every core at work."""
    rows = ceilings(results)
    decoded = [p for p in PICTURES if rows and p in rows[0]["decode_ms"]]  # older ones have fewer
    mains = [p for p in (MAIN_PHOTOGRAPH, MAIN_CROP) if p in decoded]
    head = ["engine", "forward, batch 1", "best batch", "forward there"]
    for picture in decoded:
        kind = PICTURES[picture]
        head.append(f"decode{'' if kind.is_crop else ', find'} {kind.title}")
    head += [f"requests/s, {PICTURES[p].title}" for p in mains]
    lines = []
    for row in rows:
        best = row["best_batch"]
        times = [row["forward_ms"]["1"], row["forward_ms"][best]]
        times += [row["decode_ms"][picture] for picture in decoded]
        first, there, *decode = (f"{shown(t, 2)} ms" for t in times)
        most = [shown(row["requests_per_s"][picture]) for picture in mains]
        lines.append([row["engine"], first, best, there, *decode, *most])
    return as_table(head, lines)


def starts(results: dict[str, Any]) -> str:
    """Seconds to the first answer, and memory (PSS) at rest and under the most connections."""
    picture = main_picture(results)
    rows = [r for r in results["starts"] if r.get("picture", MAIN_CROP) == picture]
    most = [r for r in loads_of(results, picture) if r.get("pss_mb") is not None]
    count = max((r["connections"] for r in most), default=0)
    head = ["", "workers", "ready after s", "MB at rest", f"MB at {count} connections"]
    lines = []
    for variant in sorted(dict.fromkeys(map(variant_of, rows)), key=lambda v: (v.workers, v.peer)):
        mine = [r for r in rows if variant_of(r) == variant]
        peak = [r["pss_mb"] for r in most if variant_of(r) == variant]
        values = [median([r[k] for r in mine]) for k in ("ready_s", "rest_mb")]
        lines.append([variant.title, variant.workers, *map(shown, (*values, median(peak)))])
    return as_table(head, lines)


def overload(results: dict[str, Any]) -> str:
    """Three times as many as the server can do, in an open loop."""
    head = ["", "capacity/s", "goodput/s", "accepted p99 ms", "refused p99 ms", "Retry-After"]
    head += ["well again after s", "generator's cores", "answers"]
    lines = []
    for row in behaviours(results, "overload"):
        refused = any(k.isdigit() and k != "200" and k != "0" for k in row["statuses"])
        again = row["well_again_s"]
        lines.append(
            [
                variant_of(row).title,
                *map(shown, (row["capacity_per_s"], row["goodput_per_s"], row["accepted_p99_ms"])),
                shown(row["rejected_p99_ms"]) if refused else "none refused",
                f"{row['retry_after_share']:.0%}" if refused else "-",
                "not within 60" if again is None else shown(again, 1),
                shown(row["generator_cores"]),
                ", ".join(f"{v} of {k}" for k, v in sorted(row["statuses"].items())),
            ]
        )
    return as_table(head, lines)


def behaviour(results: dict[str, Any]) -> str:
    """A poison picture, clients gone, idleness, SIGTERM."""
    head = ["", "neighbours failed by a poison picture", "next request after 64 gone, ms"]
    head += ["after 512 gone, ms", "idle: share of a core", "first request after, ms"]
    head += ["SIGTERM: lost of under way", "orphans", "seconds to end"]
    kinds = ("poison", "gone_64", "gone_512", "idle", "sigterm")
    by_kind = {k: {variant_of(r): r for r in behaviours(results, k)} for k in kinds}
    lines = []
    for variant in dict.fromkeys(v for rows in by_kind.values() for v in rows):
        one = {k: rows.get(variant, {}) for k, rows in by_kind.items()}
        lost = f"{one['sigterm'].get('lost')} of {one['sigterm'].get('under_way')}"
        failed = one["poison"].get("neighbours_failed_per_poison")
        lines.append(
            [
                variant.title,
                "-" if failed is None else f"{shown(failed, 1)} of 7",
                *(shown(one[k].get("next_ms", math.nan)) for k in ("gone_64", "gone_512")),
                f"{100 * one['idle']['cpu_share']:.1f} %" if one["idle"] else "-",
                shown(one["idle"].get("first_ms", math.nan)),
                lost if one["sigterm"] else "-",
                one["sigterm"].get("orphans", "-"),
                shown(one["sigterm"].get("exit_s"), 1),
            ]
        )
    return as_table(head, lines)


def problems(results: dict[str, Any]) -> str:
    """What could not be measured, and why."""
    rows = [[p["who"], p["what"], p["problem"].replace("\n", " ")] for p in results["problems"]]
    return as_table(["", "when", "problem"], rows)


def noise(results: dict[str, Any]) -> float:
    """Return the largest spread of a cell's throughput over the rounds, as a share."""
    cells: dict[tuple[Any, ...], list[float]] = {}
    for r in results["loads"]:
        key = (variant_of(r), r["picture"], r["form"], r["connections"])
        cells.setdefault(key, []).append(r["requests_per_s"])
    return max(map(spread, cells.values()), default=0.0)


def read(path: Path) -> dict[str, Any]:
    """Read results; refuses those of a run that did not finish.

    Raises:
        ValueError: They are not complete.
    """
    results: dict[str, Any] = json.loads(path.read_text())
    if not results["complete"]:
        raise ValueError(f"{path} is of a run that was not finished")
    return results


if __name__ == "__main__":
    for title, table in tables(json.loads(Path(sys.argv[1]).read_text())).items():
        print(f"## {title}\n\n{table}\n")
