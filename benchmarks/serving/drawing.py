"""The results as one picture."""

from pathlib import Path
from typing import Any

from benchmarks.serving.pictures import PICTURES
from benchmarks.serving.rows import (
    ceilings,
    hardware,
    loads_of,
    main_picture,
    median_of,
    most_workers,
    ranked,
    variant_of,
)


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw requests a second and p99 over connections, all cores each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    picture, workers = main_picture(results), most_workers(results)
    rows = [r for r in loads_of(results, picture) if r["workers"] == workers]
    figure, axes = plt.subplots(1, 2, figsize=(13, 4.2), layout="constrained")
    for variant in ranked(rows, 64):
        mine = [r for r in rows if variant_of(r) == variant]
        counts = sorted({r["connections"] for r in mine})
        style = {"linewidth": 2.6, "color": "black"} if variant.peer == "ours" else {}
        style |= {"linestyle": "--"} if variant.engine == "ours" and not style else {}
        for axis, key in zip(axes, ("requests_per_s", "p99_ms"), strict=True):
            values = [median_of(mine, key, c) for c in counts]
            axis.plot(counts, values, marker="o", label=variant.title, **style)
    for row in ceilings(results):
        if row["engine"] == "ours" and picture in row["requests_per_s"]:
            most = row["requests_per_s"][picture]
            axes[0].axhline(most, color="grey", linestyle=":")
            axes[0].annotate("without a server", (1, most), fontsize=8, va="bottom")
    for axis, title in zip(axes, ("requests/s", "p99, ms"), strict=True):
        axis.set(xscale="log", xlabel="connections", title=title)
        axis.set_xticks(sorted({r["connections"] for r in rows}))
        axis.get_xaxis().set_major_formatter(matplotlib.ticker.ScalarFormatter())
        axis.grid(alpha=0.3)
    axes[0].set_ylim(bottom=0)
    axes[1].set_yscale("log")
    # Beside the axes: any place within them hides a line of some machine's results.
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    on = hardware(results["machine"])
    figure.suptitle(f"JPEG of {PICTURES[picture].title} by multipart, {on}", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)
