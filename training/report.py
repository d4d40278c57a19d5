"""Draws results as pictures: curves, confusion matrices and diagrams."""

from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from training.agreement import Agreement
from training.evaluate import Reliability, Scores
from training.robustness import Curves

_SIZE = (6.4, 4.4)


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss, validation accuracy and the transformer's activity over the epochs.

    Args:
        history: One entry per epoch, as written by `training.run`.
        path: Where to write the PNG.
    """
    epochs = [entry["epoch"] for entry in history]
    figure = Figure(figsize=(6.4, 7.0), layout="constrained")
    panels = (
        ("loss", "training loss (nats)"),
        ("validation_accuracy", "validation accuracy"),
        ("stn_distance", "mean |theta - identity|"),
    )
    for axes, (key, label) in zip(figure.subplots(len(panels), sharex=True), panels, strict=True):
        points = [(e, entry[key]) for e, entry in zip(epochs, history, strict=True)]
        validated = [point for point in points if point[1] is not None]
        axes.plot(*zip(*validated, strict=True), linewidth=1.5)
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    axes.set_xlabel("epoch")
    figure.savefig(path, dpi=120)


def draw_confusion(scores: Scores, emotions: Sequence[str], path: Path) -> None:
    """Draw the confusion matrix: counts, coloured by the share of each emotion's faces.

    Only emotions that the split has faces of have a row. Only those, and what they were recognised
    as, have a column.

    Args:
        scores: Of one split.
        emotions: Names of the rows and columns.
        path: Where to write the PNG.
    """
    figure = Figure(figsize=(7.2, 6.0), layout="constrained")
    axes = figure.subplots()
    counts = np.array(scores.confusion)
    rows = counts.sum(1) > 0
    columns = rows | (counts.sum(0) > 0)
    counts = counts[rows][:, columns]
    shares = counts / counts.sum(1, keepdims=True)
    image = axes.imshow(shares, cmap=mpl.colormaps["Blues"], vmin=0.0, vmax=1.0)
    for (row, column), count in np.ndenumerate(counts):
        ink = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count}", ha="center", va="center", color=ink)
    names = list(compress(emotions, columns))
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    labels = [
        f"{name} ({total})"
        for name, total in zip(compress(emotions, rows), counts.sum(1), strict=True)
    ]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("recognised as")
    axes.set_ylabel("labelled (faces)")
    axes.set_title(
        f"mean recall {scores.mean_recall:.3f}, accuracy {scores.accuracy:.3f}, "
        f"{scores.faces} faces"
    )
    figure.colorbar(image, label="share of the labelled faces")
    figure.savefig(path, dpi=120)


def draw_reliability(before: Reliability, after: Reliability, path: Path) -> None:
    """Draw accuracy over confidence, before and after temperature scaling.

    Args:
        before: The bins with temperature 1.
        after: The bins with the checkpoint's temperature.
        path: Where to write the PNG.
    """
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, label="perfect")
    for name, bins in (("temperature 1", before), ("scaled", after)):
        points = [
            (c, a) for c, a, n in zip(bins.confidence, bins.accuracy, bins.faces, strict=True) if n
        ]
        axes.plot(
            *zip(*points, strict=True),
            marker="o",
            markersize=4,
            label=f"{name}: error {bins.error:.3f}",
        )
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def draw_agreement(found: Agreement, path: Path) -> None:
    """Draw accuracy by the agreement of the annotators, with the number of faces above each bar.

    Args:
        found: Of one split.
        path: Where to write the PNG.
    """
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    places = range(len(found.bins))
    bars = axes.bar(places, [one.accuracy for one in found.bins], color="#35618f")
    axes.bar_label(bars, [f"{one.faces}" for one in found.bins], padding=2)
    names = [f"{one.least:.0%}+" for one in found.bins]
    names[0], names[-1] = f"< {found.bins[1].least:.0%}", "all"
    axes.set_xticks(places, names)
    axes.set_ylim(0.0, 1.08)
    axes.set_xlabel("annotators who agree on the leading emotion")
    axes.set_ylabel("accuracy")
    axes.set_title(
        f"cross-entropy with the votes {found.cross_entropy:.3f} nats, "
        f"the votes' own {found.entropy:.3f}"
    )
    axes.grid(alpha=0.3, axis="y")
    figure.savefig(path, dpi=120)


def draw_robustness(curves: Mapping[str, Curves], path: Path) -> None:
    """Draw accuracy over the level of each corruption, with a line for each network.

    Args:
        curves: By network, all of the same corruptions.
        path: Where to write the PNG.
    """
    names = list(next(iter(curves.values())))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.0 * columns, 3.0 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
    for axes, name in zip(panels, names, strict=False):
        for network, measured in curves.items():
            points = measured[name]
            axes.plot(
                [p["level"] for p in points], [p["accuracy"] for p in points],
                marker="o", markersize=3, label=network,
            )  # fmt: skip
        axes.set_xlabel(name)
        if len(curves) == 1:  # with several networks, a narrower range shows their differences
            axes.set_ylim(0.0, 1.0)
        axes.grid(alpha=0.3)
    for axes in panels:
        axes.set_axis_off()
    figure.supylabel("accuracy")
    if len(curves) > 1:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=120)
