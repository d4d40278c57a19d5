import dataclasses
import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.ablation import ROWS, Row, ablate
from training.config import TrainConfig
from training.dataset import Dataset
from training.machine import Machine
from training.run import Interrupted, Run
from training.significance import summarise


def test_rows_are_the_papers_table() -> None:
    assert len({row.name for row in ROWS}) == 7
    assert ROWS[0].name == "relu"
    assert ROWS[-1].name == "stn+channel+spatial+gelu"


def test_a_row_sets_its_switches_and_nothing_else(recipe: TrainConfig) -> None:
    network = Row(True, False, True, "relu").applied_to(recipe.network)
    assert (network.stn, network.channel_attention, network.spatial_attention) == (
        True,
        False,
        True,
    )
    assert network.activation == "relu"
    assert network.widths == recipe.network.widths


def test_a_cut_ablation_goes_on_where_it_stopped(
    few: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    recipe = dataclasses.replace(recipe, epochs=1, batch_size=7)
    began: list[str] = []

    def stop_at_third(run: Run, name: str) -> Any:
        began.append(name)
        if len(began) == 3:
            raise Interrupted
        return lambda _: None

    with pytest.raises(Interrupted):
        ablate(few, recipe, (0, 1), tmp_path, cpu, stop_at_third)
    done = ablate(few, recipe, (0, 1), tmp_path, cpu, stop_at_third)
    assert len(began) == 3 + 12  # two of fourteen were done
    assert [len(runs) for runs in done.values()] == [2] * 7
    first = done["relu"][0]
    assert json.loads((tmp_path / "relu/seed-0/result.json").read_text()) == first
    assert first["parameters"] < done["stn+channel+spatial+gelu"][0]["parameters"]
    assert len(first["geometry"]) == 3
    assert "stn+channel+spatial+gelu against" in summarise(done)


def test_a_kill_while_a_result_is_written_leaves_none(
    few: Dataset,
    recipe: TrainConfig,
    tmp_path: Path,
    cpu: Machine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = dataclasses.replace(recipe, epochs=1, batch_size=7)
    write = Path.write_text

    def die_half_way(path: Path, text: str) -> int:
        if path.name.startswith("result.json"):
            write(path, text[: len(text) // 2])
            raise KeyboardInterrupt
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", die_half_way)
    with pytest.raises(KeyboardInterrupt):
        ablate(few, recipe, (0, 1), tmp_path, cpu, lambda *_: lambda _: None)
    assert list(tmp_path.rglob("result.json")) == []


def test_several_processes_are_refused(
    few: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    two = dataclasses.replace(cpu, world=2)
    with pytest.raises(ValueError, match="one process"):
        ablate(few, recipe, (0, 1), tmp_path, two, lambda *_: lambda _: None)


def test_what_another_process_is_at_comes_last(
    few: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine
) -> None:
    recipe = dataclasses.replace(recipe, epochs=1, batch_size=7)
    (tmp_path / "relu/seed-0").mkdir(parents=True)
    other = (tmp_path / "relu/seed-0/lock").open("w")
    fcntl.flock(other, fcntl.LOCK_EX)
    began: list[str] = []

    def begin(run: Run, name: str) -> Callable[[Run], None]:
        began.append(name)
        if len(began) == 13:
            other.close()  # the other process has died
        return lambda _: None

    done = ablate(few, recipe, (0, 1), tmp_path, cpu, begin)
    assert began[0] == "gelu seed 0"
    assert began[-1] == "relu seed 0"
    assert len(began) == 14
    assert [run["seed"] for run in done["relu"]] == [0, 1]
