"""The mean of several runs' weights."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.training.conftest import teacher
from training.__main__ import main
from training.average import average
from training.model.checkpoint import Checkpoint, digest, load_checkpoint, save_checkpoint
from training.model.labels import FER2013_EMOTIONS
from training.validation import BEST_FILE


def made(seed: int) -> Checkpoint:
    checkpoint = teacher(FER2013_EMOTIONS, seed)
    for name, buffer in checkpoint.network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    provenance = {"recipe": {"seed": seed}, "start": "a", "teachers": ["t"]}
    return dataclasses.replace(
        checkpoint, manifest=dataclasses.replace(checkpoint.manifest, provenance=provenance)
    )


def test_weights_and_statistics_are_the_mean() -> None:
    parts = [made(seed) for seed in range(3)]
    mean = average(parts).network.state_dict()
    for name, tensor in mean.items():
        expected = sum(part.network.state_dict()[name].double() for part in parts) / 3
        torch.testing.assert_close(tensor.double(), expected, msg=name)
    assert not mean["stem.0.weight"].equal(parts[0].network.state_dict()["stem.0.weight"])


def test_it_says_of_what_it_is_the_mean() -> None:
    parts = [made(0), made(1)]
    before = [digest(part.network) for part in parts]
    manifest = average(parts).manifest
    assert [part["weights"] for part in manifest.provenance["average_of"]] == before
    assert [part["recipe"]["seed"] for part in manifest.provenance["average_of"]] == [0, 1]
    assert manifest.provenance["teachers"] == ["t"]
    assert [digest(part.network) for part in parts] == before  # they stay as they are


def test_one_is_its_own_mean() -> None:
    only = made(0)
    assert average([only]) is only


def test_what_differs_is_named() -> None:
    other = teacher(("happy", "sad"), 1)
    with pytest.raises(ValueError, match="another network"):
        average([made(0), other])
    swapped = dataclasses.replace(made(1).manifest, emotions=tuple(reversed(FER2013_EMOTIONS)))
    with pytest.raises(ValueError, match="another emotions"):
        average([made(0), dataclasses.replace(made(1), manifest=swapped)])


def test_runs_are_averaged_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: object
) -> None:
    parts = [made(seed) for seed in range(2)]
    runs = [tmp_path / str(place) for place in range(2)]
    for part, run in zip(parts, runs, strict=True):
        run.mkdir()
        save_checkpoint(run / BEST_FILE, part.network, part.manifest, torch.float32)
    monkeypatch.setattr("training.__main__.load", lambda *_, **__: data)
    out = tmp_path / "out.safetensors"
    options = ["--data", "made-up", "--device", "cpu", "--threads", "1", "--out", str(out)]
    assert main(["export", *options, "--folder", *map(str, runs)]) == 0
    written = load_checkpoint(out).network.state_dict()
    for name, tensor in average(parts).network.state_dict().items():
        torch.testing.assert_close(written[name], tensor.half().to(tensor.dtype), msg=name)
