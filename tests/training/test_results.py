import dataclasses
import json
from pathlib import Path

import pytest

from training.ablation import ROWS
from training.config import TrainConfig
from training.dataset import Dataset
from training.machine import Machine
from training.model.checkpoint import Checkpoint
from training.model.manifest import Manifest, NetworkConfig
from training.model.network import AttentionFER
from training.results import write_ablation, write_results


@pytest.fixture
def checkpoint(data: Dataset) -> Checkpoint:
    config = NetworkConfig(widths=(4,), depths=(1,))
    manifest = Manifest("attention-fer-test", "1", config, data.emotions, temperature=2.0)
    return Checkpoint(AttentionFER(config).eval(), manifest)


def test_votes_are_compared_where_there_are_any(
    checkpoint: Checkpoint, data: Dataset, tmp_path: Path, cpu: Machine
) -> None:
    voted = dataclasses.replace(data, test_votes=data.test)
    write_results(checkpoint, voted, tmp_path / "new", cpu)
    results = json.loads((tmp_path / "new/results.json").read_text())
    assert results["checkpoint"] == {"name": "attention-fer-test", "version": "1"}
    # The votes are the labels here, so all agree, and nothing is left to guess.
    assert results["agreement"]["entropy"] == 0.0
    assert results["agreement"]["cross_entropy"] == pytest.approx(
        results["test"]["cross_entropy"], rel=1e-5
    )
    assert results["agreement"]["bins"][-1]["faces"] == len(data.test)
    pictures = sorted(path.name for path in (tmp_path / "new").glob("*.png"))
    expected = ["agreement.png", "confusion.png", "reliability.png", "robustness.png"]
    assert pictures == expected
    for name in expected:
        assert (tmp_path / "new" / name).read_bytes().startswith(b"\x89PNG")


def test_an_ablation_keeps_its_recipe_and_every_run(tmp_path: Path) -> None:
    curves = {"rotation (degrees)": [{"level": 0, "accuracy": 0.5}, {"level": 45, "accuracy": 0.2}]}
    results = {row.name: [{"seed": seed, "geometry": curves} for seed in (0, 1)] for row in ROWS}
    wrote = write_ablation(results, TrainConfig(epochs=3), tmp_path / "new")
    assert sorted(wrote) == sorted(path.name for path in (tmp_path / "new").iterdir())
    kept = json.loads((tmp_path / "new/ablation.json").read_text())
    assert kept["recipe"]["epochs"] == 3
    assert kept["rows"] == results
    assert (tmp_path / "new/geometry.png").read_bytes().startswith(b"\x89PNG")
