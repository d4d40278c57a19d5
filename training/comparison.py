"""Compares checkpoints on faces from another source and on the validation split, for each prior.

Recipes, priors and networks are chosen by this table; it does not contain the test split.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from training.crops import read_crops
from training.dataset import DataError, Dataset, Split, with_columns
from training.evaluate import Scores, predict
from training.machine import Machine
from training.model.checkpoint import Checkpoint, load_checkpoint
from training.model.labels import FER2013_EMOTIONS
from training.model.manifest import Manifest
from training.model.prior import Shares, named_prior
from training.priors import fit_temperatures, score_under, stated_prior

WELL_LABELLED: Final = ("anger", "happiness", "sadness", "surprise", "neutral")
"""The emotions whose labels in `wild` are reliable; those of disgust and fear are doubtful."""

_PRIORS: Final = ("training", "balanced", "uniform")


def compare(
    paths: Sequence[Path], data: Dataset, wild: Path, machine: Machine, *, named_only: bool = True
) -> list[dict[str, Any]]:
    """Measure checkpoints on `wild` and on the validation faces of both tasks of the data.

    Args:
        paths: Checkpoints with the emotions of either task. If one has no prior, its prior and
            temperatures are computed from the data.
        data: FER2013's faces, with or without FER+'s votes.
        wild: For `crops.read_crops`.
        machine: Where to compute.
        named_only: Whether only emotions among a split's labels can be answered. Otherwise any
            other answer is an error, as in the service.

    Returns:
        A row for each checkpoint and prior, for JSON.

    Raises:
        CheckpointError: A checkpoint cannot be loaded.
        DataError: `wild` cannot be read, or a checkpoint has emotions of neither task.
    """
    rows = []
    for path in paths:
        checkpoint = _stated(path, data, machine)
        manifest = checkpoint.manifest
        splits = _splits(manifest, data) | {
            "wild": read_crops(wild, manifest.emotions, manifest.input_spec)
        }
        spec = manifest.input_spec
        logits = {
            name: predict(checkpoint.network, split.faces, spec, machine)
            for name, split in splits.items()
        }
        for prior in _PRIORS:
            row: dict[str, Any] = {"checkpoint": _title(path), "prior": prior}
            for name, split in splits.items():
                shares = named_prior(manifest.prior or (), prior)
                shares = _among(shares, split) if named_only else shares
                scores = score_under(logits[name], split, manifest, shares)
                row[name] = _figures(scores, manifest.emotions)
            rows.append(row)
    return rows


def tabulate_comparison(rows: Sequence[dict[str, Any]]) -> str:
    """Format the rows of `compare` as a Markdown table; unmeasured cells are empty."""
    validation = [("ferplus", "FER+"), ("fer2013", "FER2013")]
    head = ["checkpoint", "prior", "wild: five", "seven", "accuracy", *FER2013_EMOTIONS]
    for _, name in validation:
        head += [f"PublicTest {name}: mean recall", "accuracy"]
    lines = [_line(head), "|---" * len(head) + "|"]
    for row in rows:
        wild = row["wild"]
        cells = [row["checkpoint"], row["prior"]]
        cells += [_number(wild[key]) for key in ("five", "mean_recall", "accuracy")]
        cells += [_number(wild["recall"].get(name), 2) for name in FER2013_EMOTIONS]
        for key, _ in validation:
            found = row.get(key, {})
            cells += [_number(found.get(figure)) for figure in ("mean_recall", "accuracy")]
        lines.append(_line(cells))
    return "\n".join(lines)


def _stated(path: Path, data: Dataset, machine: Machine) -> Checkpoint:
    """Load a checkpoint; compute prior and temperatures from the data if it has none."""
    checkpoint = load_checkpoint(path)
    checkpoint.network.to(machine.device)
    manifest = checkpoint.manifest
    if manifest.prior is not None:
        return checkpoint
    tasks = [task for task in (data, data.second) if task and task.emotions == manifest.emotions]
    if not tasks:
        raise DataError(f"{path}: the data has no labels with {', '.join(manifest.emotions)}")
    split = tasks[0].validation
    prior = stated_prior(tasks[0], manifest.provenance.get("recipe") or {})
    logits = predict(checkpoint.network, split.faces, manifest.input_spec, machine)
    temperatures = fit_temperatures(logits, split.targets, prior)
    stated = dataclasses.replace(manifest, prior=prior, temperatures=temperatures)
    return Checkpoint(checkpoint.network, stated)


def _splits(manifest: Manifest, data: Dataset) -> dict[str, Split]:
    """Return the validation faces of each task whose emotions the checkpoint has."""
    found = {}
    for task in (data, data.second):
        if task and set(task.emotions) <= set(manifest.emotions):
            found[task.name] = with_columns(task.validation, task.emotions, manifest.emotions)
    return found


def _among(shares: Shares, split: Split) -> Shares:
    """Return a prior that is 0 for emotions without faces in a split."""
    there = (split.targets.sum(0) > 0).tolist()
    kept = [share * named for share, named in zip(shares, there, strict=True)]
    return tuple(share / sum(kept) for share in kept)


def _figures(scores: Scores, emotions: tuple[str, ...]) -> dict[str, Any]:
    recall = {name: r for name, r in zip(emotions, scores.recall, strict=True) if r is not None}
    five = [recall[name] for name in WELL_LABELLED if name in recall]
    return {
        "accuracy": scores.accuracy,
        "mean_recall": scores.mean_recall,
        "five": sum(five) / len(five) if five else None,
        "calibration_error": scores.calibration_error,
        "recall": recall,
    }


def _title(path: Path) -> str:
    return path.parent.name if path.stem == "best" else path.stem


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
