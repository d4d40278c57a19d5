import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from training.config import TrainConfig
from training.dataset import Dataset
from training.machine import Machine
from training.model.checkpoint import load_checkpoint
from training.model.manifest import InputSpec
from training.run import HISTORY_FILE, STATE_FILE, Interrupted, Run, fit
from training.state import ResumeError
from training.validation import BEST_FILE


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the run gets to clean up."""


def fresh(data: Dataset, recipe: TrainConfig, folder: Path, cpu: Machine) -> Run:
    folder.mkdir(exist_ok=True)
    return Run(data, recipe, InputSpec(), folder, cpu)


def without_speed(history: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{k: v for k, v in entry.items() if k != "faces_per_second"} for entry in history]


@pytest.mark.parametrize(("optimiser", "rate"), [("sgd", 0.1), ("adamw", 0.01)])
def test_learns_made_up_faces(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine, optimiser: Any, rate: float
) -> None:
    recipe = dataclasses.replace(recipe, optimiser=optimiser, learning_rate=rate, epochs=12)
    run = fresh(data, recipe, tmp_path, cpu)
    history = fit(run)
    assert history[-1]["loss"] < history[0]["loss"]
    assert run.progress.best["made-up"] > 0.6  # one in seven by chance


def test_a_cut_run_ends_where_an_uncut_one_does(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    uncut = fresh(data, recipe, tmp_path / "uncut", cpu)
    expected = without_speed(fit(uncut))

    def kill(run: Run) -> None:
        if run.progress.step in cuts:
            cuts.remove(run.progress.step)
            raise Killed

    cuts = {2, 8, 12}  # in mid-epoch, and within the same one again; five steps an epoch
    for _ in range(3):
        run = fresh(data, recipe, tmp_path / "cut", cpu)
        run.restore()
        with pytest.raises(Killed):
            fit(run, save_every_s=0.0, on_step=kill)
    run = fresh(data, recipe, tmp_path / "cut", cpu)
    assert run.restore()
    assert run.progress.step == 11
    assert without_speed(fit(run)) == expected
    for name, tensor in run.averaged.state_dict().items():
        assert torch.equal(tensor, uncut.averaged.state_dict()[name]), name
    best = [load_checkpoint(tmp_path / name / BEST_FILE) for name in ("cut", "uncut")]
    images = torch.randn(2, 1, 48, 48)
    assert torch.equal(best[0].network(images).logits, best[1].network(images).logits)


def test_work_since_the_last_save_is_done_again(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    expected = without_speed(fit(fresh(data, recipe, tmp_path / "uncut", cpu)))

    def kill(run: Run) -> None:
        if run.progress.step == 9:
            raise Killed

    with pytest.raises(Killed):
        fit(fresh(data, recipe, tmp_path / "cut", cpu), save_every_s=1e9, on_step=kill)
    run = fresh(data, recipe, tmp_path / "cut", cpu)
    assert run.restore()
    assert run.progress.step == 5  # the end of the first epoch
    assert without_speed(fit(run)) == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine, number: signal.Signals
) -> None:
    handler = signal.getsignal(number)

    def interrupt(run: Run) -> None:
        if run.progress.step == 3:
            os.kill(os.getpid(), number)

    run = fresh(data, recipe, tmp_path, cpu)
    with pytest.raises(Interrupted):
        fit(run, on_step=interrupt)
    again = fresh(data, recipe, tmp_path, cpu)
    assert again.restore()
    assert again.progress.step == run.progress.step == 3
    assert signal.getsignal(number) == handler


def test_history_is_a_line_an_epoch(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    history = fit(fresh(data, recipe, tmp_path, cpu))
    lines = (tmp_path / HISTORY_FILE).read_text().splitlines()
    assert [json.loads(line) for line in lines] == history
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert all(entry["stn_distance"] >= 0 for entry in history)
    assert any(entry["stn_distance"] > 0 for entry in history)


def test_the_best_epoch_is_kept_with_its_own_score(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    history = fit(fresh(data, recipe, tmp_path, cpu))
    best = max(history, key=lambda entry: entry["validation_accuracy"])
    manifest = load_checkpoint(tmp_path / BEST_FILE).manifest
    kept = manifest.metrics["validation"]
    assert kept["validation_accuracy"] == best["validation_accuracy"]
    assert manifest.emotions == data.emotions


def test_another_recipe_does_not_go_on_with_this_one(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    fit(fresh(data, recipe, tmp_path, cpu))
    longer = fresh(data, dataclasses.replace(recipe, epochs=9), tmp_path, cpu)
    with pytest.raises(ResumeError, match="another recipe"):
        longer.restore()
    other = fresh(dataclasses.replace(data, fingerprint="0" * 64), recipe, tmp_path, cpu)
    with pytest.raises(ResumeError, match="another data set"):
        other.restore()


def test_nothing_to_go_on_with(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    assert not fresh(data, recipe, tmp_path, cpu).restore()


def test_a_finished_run_trains_no_further(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    history = fit(fresh(data, recipe, tmp_path, cpu))
    before = (tmp_path / STATE_FILE).read_bytes()
    run = fresh(data, recipe, tmp_path, cpu)
    assert run.restore()
    assert fit(run) == history
    assert (tmp_path / STATE_FILE).read_bytes() == before


def test_clean_epochs_vary_nothing_but_the_side(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    mixing = dataclasses.replace(recipe.augment, mixup=0.5)
    recipe = dataclasses.replace(recipe, augment=mixing, clean_epochs=1)
    sampler = fresh(data, recipe, tmp_path, cpu).sampler
    _, mixed = sampler.batch(step=1 * 5)
    assert (mixed.max(1).values < 1).any()
    _, clean = sampler.batch(step=2 * 5)
    assert (clean.max(1).values == 1).all()


def test_a_batch_that_cannot_be_shared_is_refused(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    three = dataclasses.replace(cpu, world=3)
    with pytest.raises(ValueError, match="cannot be shared by 3 processes"):
        Run(data, recipe, InputSpec(), tmp_path, three)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_run_learns_the_same(
    data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    plain = fit(fresh(data, recipe, tmp_path / "plain", cpu))
    compiled = dataclasses.replace(cpu, compiles=True)
    history = fit(fresh(data, recipe, tmp_path / "compiled", compiled))
    for ours, theirs in zip(history, plain, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=0.05)
    load_checkpoint(tmp_path / "compiled" / BEST_FILE)
