"""Tests of `benchmarks.engine`: it runs here as it does on a GPU, only smaller."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import device, engine
from service.kernels import files
from training.model.checkpoint import save_checkpoint
from training.model.labels import FER2013_EMOTIONS
from training.model.manifest import Manifest, NetworkConfig
from training.model.network import AttentionFER


def test_it_measures_each_engine_at_each_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = NetworkConfig(widths=(8,), depths=(1,))
    path = tmp_path / "random.safetensors"
    manifest = Manifest("random", "0", config, FER2013_EMOTIONS)
    save_checkpoint(path, AttentionFER(config), manifest, torch.float32)
    monkeypatch.setitem(device.SIDE, "cpu", 64)
    monkeypatch.setitem(device.BATCH, "cpu", 1)
    arguments = ["--device", "cpu", "--seconds", "0", "--max-batch", "3", "--checkpoint", str(path)]
    monkeypatch.setattr(sys, "argv", ["engine", *arguments])
    monkeypatch.setattr(engine, "tune_malloc", lambda: None)  # it is for a whole process
    engine.main()
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    names = ["eager", *(path.stem for path in reversed(files()))]
    assert rows[0] == ["faces/s (share of the limit)", *names]
    assert [row[0] for row in rows[2:]] == ["1", "2", "3"]
    assert all(float(cell.split()[0]) > 0 for row in rows[2:] for cell in row[1:])


def test_in_flight_finishes_each_batch_after_the_next_one_began() -> None:
    said: list[str] = []

    class Engine:
        def begin(self, faces: np.ndarray) -> object:
            said.append(f"begin {len(faces)}")
            return lambda: said.append(f"finish {len(faces)}")

    infer = engine.in_flight(Engine())  # type: ignore[arg-type]
    for count in (1, 2, 3):
        infer(np.zeros((count, 2, 2), np.uint8))
    assert said == ["begin 1", "begin 2", "finish 1", "begin 3", "finish 2"]


def test_the_limit_is_the_faster_of_both_and_of_the_precision_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(device.SIDE, "cpu", 64)
    monkeypatch.setitem(device.BATCH, "cpu", 1)
    seen: list[torch.dtype] = []
    rates = iter((0.0, 0.0, 3.0, 5.0))

    def rate(work: object, seconds: float, here: object) -> float:
        seen.append(work().dtype)  # type: ignore[operator]
        return next(rates)

    monkeypatch.setattr(device, "rate", rate)
    found = device.limit(torch.device("cpu"), torch.bfloat16, 0.0)
    convolution = 2 * 1 * 12 * 12 * 128 * 128 * 3 * 3
    assert found == max(3.0 * 2 * 64**3, 5.0 * convolution)
    assert set(seen) == {torch.bfloat16}
