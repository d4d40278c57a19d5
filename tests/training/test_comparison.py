import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.conftest import teacher
from training.comparison import compare, tabulate_comparison
from training.dataset import DataError, Dataset, Split
from training.machine import Machine
from training.model.checkpoint import save_checkpoint
from training.model.labels import FER2013_EMOTIONS, FERPLUS_EMOTIONS


@pytest.fixture
def voted(data: Dataset) -> Dataset:
    def with_contempt(split: Split) -> Split:
        targets = torch.nn.functional.pad(0.9 * split.targets, (0, 1), value=0.1)
        return Split(split.faces, targets)

    return dataclasses.replace(
        data, name="ferplus", emotions=FERPLUS_EMOTIONS, train=with_contempt(data.train),
        validation=with_contempt(data.validation), second=dataclasses.replace(data, name="fer2013"),
    )  # fmt: skip


@pytest.fixture
def wild(data: Dataset, tmp_path: Path) -> Path:
    path = tmp_path / "wild.npz"
    np.savez(path, faces=data.test.faces.numpy(), labels=data.test.labels.numpy())
    return path


def saved(folder: Path, emotions: tuple[str, ...]) -> Path:
    known = teacher(emotions, len(emotions))
    with torch.no_grad():
        known.network.classify.bias[-1] += 100.0  # the last emotion is always the answer
    path = folder / f"names-{len(emotions)}.safetensors"
    save_checkpoint(path, known.network, known.manifest, torch.float32)
    return path


def test_every_checkpoint_is_measured_under_each_prior(
    voted: Dataset, wild: Path, tmp_path: Path, cpu: Machine
) -> None:
    paths = [saved(tmp_path, FERPLUS_EMOTIONS), saved(tmp_path, FER2013_EMOTIONS)]
    rows = compare(paths, voted, wild, cpu)
    assert [(row["checkpoint"], row["prior"]) for row in rows] == [
        (name, prior)
        for name in ("names-8", "names-7")
        for prior in ("training", "balanced", "uniform")
    ]
    assert set(rows[0]) >= {"wild", "ferplus", "fer2013"}
    assert "ferplus" not in rows[3]
    assert set(rows[0]["wild"]["recall"]) == set(FER2013_EMOTIONS)
    table = tabulate_comparison(rows)
    assert len(table.splitlines()) == 2 + 6
    assert len({line.count("|") for line in table.splitlines()}) == 1


def test_an_emotion_that_no_label_names_is_answered_only_if_asked_for(
    voted: Dataset, wild: Path, tmp_path: Path, cpu: Machine
) -> None:
    path = saved(tmp_path, FERPLUS_EMOTIONS)
    named = compare([path], voted, wild, cpu)
    everything = compare([path], voted, wild, cpu, named_only=False)
    assert everything[0]["wild"]["accuracy"] == 0.0  # always contempt
    assert named[0]["wild"]["accuracy"] > 0.0


def test_a_checkpoint_of_other_emotions_is_named(
    voted: Dataset, wild: Path, tmp_path: Path, cpu: Machine
) -> None:
    path = saved(tmp_path, ("happy", "sad"))
    with pytest.raises(DataError, match="no labels with happy, sad"):
        compare([path], voted, wild, cpu)
