import dataclasses
from pathlib import Path

import pytest

from training.config import TrainConfig
from training.dataset import Dataset
from training.machine import Machine
from training.model.checkpoint import load_checkpoint
from training.model.manifest import InputSpec
from training.progress import describe
from training.report import draw_curves
from training.run import Run, fit
from training.validation import BEST_FILE


def test_only_every_nth_epoch_and_the_last_are_validated(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    sparse = dataclasses.replace(recipe, epochs=5, validate_every=2)
    history = fit(Run(data, sparse, InputSpec(), tmp_path, cpu))
    validated = [entry["epoch"] for entry in history if entry["validation_accuracy"] is not None]
    assert validated == [2, 4, 5]
    best = max(entry["validation_accuracy"] or 0.0 for entry in history)
    kept = load_checkpoint(tmp_path / BEST_FILE).manifest
    assert kept.version.removeprefix("epoch-") in {"2", "4", "5"}
    assert kept.metrics["validation"]["validation_accuracy"] == best
    assert "mean recall" not in describe(history[0])
    assert "mean recall" in describe(history[1])
    draw_curves(history, tmp_path / "curves.png")


def test_what_is_validated_changes_nothing_that_is_learnt(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    often = fit(Run(data, recipe, InputSpec(), tmp_path / "often", cpu))
    sparse = dataclasses.replace(recipe, validate_every=3)
    seldom = fit(Run(data, sparse, InputSpec(), tmp_path / "sparse", cpu))
    assert [entry["loss"] for entry in often] == [entry["loss"] for entry in seldom]
    assert often[-1]["validation_accuracy"] == seldom[-1]["validation_accuracy"]


def test_never_is_not_every_nth(recipe: TrainConfig) -> None:
    with pytest.raises(ValueError, match="validate_every"):
        dataclasses.replace(recipe, validate_every=0)
