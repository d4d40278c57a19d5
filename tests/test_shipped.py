"""The checkpoint in this repository is what its header says."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from training.config import RECIPES
from training.dataset import load
from training.evaluate import predict, score
from training.machine import machine
from training.model.checkpoint import Checkpoint, load_checkpoint
from training.model.labels import FER2013_EMOTIONS
from training.model.network import count_multiply_adds, count_parameters

SHIPPED = Path(__file__).parent.parent / "service/weights/attention-fer-fer2013.safetensors"


@pytest.fixture(scope="module")
def shipped() -> Checkpoint:
    return load_checkpoint(SHIPPED)


def test_budget(shipped: Checkpoint) -> None:
    cost = shipped.manifest.metrics["cost"]
    spec = shipped.manifest.input_spec
    assert count_parameters(shipped.network) == cost["parameters"] <= 6_000_000
    assert count_multiply_adds(shipped.network, spec) == cost["multiply_adds"] <= 350_000_000
    assert SHIPPED.stat().st_size <= 12_000_000


def test_it_is_the_papers_network(shipped: Checkpoint) -> None:
    network = shipped.manifest.network
    assert network.stn
    assert network.channel_attention
    assert network.spatial_attention
    assert network.activation == "gelu"
    assert shipped.manifest.emotions == FER2013_EMOTIONS


def test_the_recipe_of_its_name_made_it(shipped: Checkpoint) -> None:
    recipe = json.loads(json.dumps(dataclasses.asdict(RECIPES["fer2013"])))
    assert shipped.manifest.provenance["recipe"] == recipe


def test_the_header_claims_the_accuracy_that_is_asked(shipped: Checkpoint) -> None:
    assert shipped.manifest.metrics["test"]["faces"] == 3589
    assert shipped.manifest.metrics["test"]["accuracy"] >= 0.68


@pytest.mark.timeout(600)
def test_private_test_gives_what_the_header_claims(shipped: Checkpoint, tmp_path: Path) -> None:
    if "FER2013_CSV" not in os.environ:
        pytest.skip("FER2013_CSV does not name FER2013's csv")
    # Through a link, so that nothing is kept beside somebody's data.
    csv = tmp_path / "fer2013.csv"
    csv.symlink_to(Path(os.environ["FER2013_CSV"]).absolute())
    test, manifest = load(csv, cache=False).test, shipped.manifest
    with machine("cpu") as here:
        logits = predict(shipped.network, test.faces, manifest.input_spec, here)
    measured, claimed = score(logits, test.targets, manifest.temperature), manifest.metrics["test"]
    # Another processor may round one face to the other side.
    assert measured.accuracy == pytest.approx(claimed["accuracy"], abs=2 / 3589)
    assert measured.macro_f1 == pytest.approx(claimed["macro_f1"], abs=2e-3)
    assert measured.calibration_error == pytest.approx(claimed["calibration_error"], abs=2e-3)
