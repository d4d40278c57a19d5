import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from training.config import TrainConfig
from training.dataset import Dataset
from training.machine import Machine
from training.model.manifest import InputSpec
from training.run import STATE_FILE, Run, fit
from training.state import ResumeError, write_whole


def rewrite(path: Path, change: Any) -> None:
    """Change the recipe in a saved state."""
    state = torch.load(path, weights_only=True)
    recipe = json.loads(state["identity"]["recipe"])
    change(recipe)
    state["identity"]["recipe"] = json.dumps(recipe)
    torch.save(state, path)


def forget(recipe: dict[str, Any]) -> None:
    """Leave the settings out that earlier releases did not have."""
    for name in ("validate_every", "label_share", "balance"):
        del recipe[name]
    for name in ("gamma", "resolution", "fewest_pixels", "noise"):
        del recipe["augment"][name]


@pytest.fixture
def cut(data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine) -> Path:
    run = Run(data, recipe, InputSpec(), tmp_path, cpu)
    for _ in range(3):
        run.step()
    run.save()
    return tmp_path


def test_a_run_saved_before_a_setting_existed_goes_on(
    cut: Path, data: Dataset, recipe: TrainConfig, cpu: Machine
) -> None:
    rewrite(cut / STATE_FILE, forget)
    run = Run(data, recipe, InputSpec(), cut, cpu)
    assert run.restore()
    assert run.progress.step == 3
    assert len(fit(run)) == recipe.epochs


@pytest.mark.parametrize(
    "changed", [{"validate_every": 2}, {"balance": 0.5}, {"learning_rate": 1.0}]
)
def test_a_setting_that_is_not_its_default_makes_another_recipe(
    cut: Path, data: Dataset, recipe: TrainConfig, cpu: Machine, changed: dict[str, Any]
) -> None:
    rewrite(cut / STATE_FILE, forget)
    run = Run(data, dataclasses.replace(recipe, **changed), InputSpec(), cut, cpu)
    with pytest.raises(ResumeError, match="another recipe"):
        run.restore()


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, lambda part: part.write_text("old"))

    def die(part: Path) -> None:
        part.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole(path, die)
    assert path.read_text() == "old"
