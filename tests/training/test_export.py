import dataclasses
from pathlib import Path

import pytest

from training.config import TrainConfig
from training.dataset import Dataset
from training.export import export, measure
from training.machine import Machine
from training.model.checkpoint import load_checkpoint
from training.model.manifest import CheckpointError, InputSpec
from training.run import Run, fit
from training.validation import BEST_FILE


@pytest.fixture
def trained(data: Dataset, recipe: TrainConfig, tmp_path: Path, cpu: Machine) -> Path:
    fit(Run(data, recipe, InputSpec(), tmp_path, cpu))
    return tmp_path / BEST_FILE


def test_the_header_repeats_to_the_last_digit(
    trained: Path, data: Dataset, tmp_path: Path, cpu: Machine
) -> None:
    out = tmp_path / "shipped.safetensors"
    export(load_checkpoint(trained), out, data, cpu)
    checkpoint = load_checkpoint(out)
    again = measure(checkpoint, data, cpu)
    claimed = checkpoint.manifest.metrics
    for key in ("validation", "validation_flip", "test", "test_flip"):
        for name, value in again[key].items():
            stored = claimed[key][name]
            assert stored == (_lists(value) if isinstance(value, tuple) else value), (key, name)


def test_it_says_what_it_is(trained: Path, data: Dataset, tmp_path: Path, cpu: Machine) -> None:
    out = tmp_path / "shipped.safetensors"
    export(load_checkpoint(trained), out, data, cpu)
    manifest = load_checkpoint(out).manifest
    assert manifest.name == "attention-fer-made-up"
    assert manifest.temperature != 1.0
    assert "chosen on the validation split" in manifest.metrics["protocol"]
    assert manifest.metrics["cost"]["parameters"] > 0
    assert manifest.provenance["data"]["sha256"] == data.fingerprint
    assert manifest.provenance["recipe"]["epochs"] == 3
    assert out.stat().st_size < trained.stat().st_size


def test_equal_weights_have_an_equal_version(
    trained: Path, data: Dataset, tmp_path: Path, cpu: Machine
) -> None:
    first = export(load_checkpoint(trained), tmp_path / "a.safetensors", data, cpu).manifest.version
    assert (
        export(load_checkpoint(trained), tmp_path / "b.safetensors", data, cpu).manifest.version
        == first
    )


def test_scaling_helps_calibration_on_validation(
    trained: Path, data: Dataset, tmp_path: Path, cpu: Machine
) -> None:
    done = export(load_checkpoint(trained), tmp_path / "a.safetensors", data, cpu)
    scaled = measure(done, data, cpu)["validation"]["cross_entropy"]
    plain = dataclasses.replace(done, manifest=dataclasses.replace(done.manifest, temperature=1.0))
    assert scaled < measure(plain, data, cpu)["validation"]["cross_entropy"]


def test_a_run_without_a_checkpoint_is_named(data: Dataset, tmp_path: Path, cpu: Machine) -> None:
    with pytest.raises(CheckpointError, match=r"best\.safetensors: no such file"):
        export(load_checkpoint(tmp_path / BEST_FILE), tmp_path / "out.safetensors", data, cpu)


def _lists(value: object) -> object:
    return [_lists(item) for item in value] if isinstance(value, tuple) else value
