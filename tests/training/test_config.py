import dataclasses
from pathlib import Path

import pytest

from tests.training.conftest import teacher
from training.config import RECIPES
from training.dataset import Dataset
from training.machine import Machine
from training.model.manifest import InputSpec
from training.model.network import AttentionFER, count_multiply_adds, count_parameters
from training.run import Run, fit
from training.validation import best_checkpoint


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_stays_in_the_budget(name: str) -> None:
    network = AttentionFER(dataclasses.replace(RECIPES[name].network, classes=8))
    assert count_parameters(network) <= 6_000_000
    assert count_multiply_adds(network, InputSpec()) <= 350_000_000


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_two_steps(
    name: str, few: Dataset, tmp_path: Path, cpu: Machine
) -> None:
    """Also the one for a GPU: at its own shape, with few faces."""
    second = dataclasses.replace(few, name="second")
    both = dataclasses.replace(few, second=second)
    recipe = dataclasses.replace(RECIPES[name], epochs=1, clean_epochs=0, batch_size=7)
    teachers = [teacher(few.emotions, 0)] if recipe.teacher_share else []
    run = Run(both, recipe, InputSpec(), tmp_path, cpu, teachers=teachers)
    (entry,) = fit(run)
    assert run.progress.step == 2
    assert 0.5 < entry["loss"] < 5.0
    assert (entry["second_validation_accuracy"] is None) == (recipe.second_target == 0)
    assert best_checkpoint(tmp_path, few).is_file()
    assert (tmp_path / "best-second.safetensors").is_file() == (recipe.second_target > 0)
