from pathlib import Path

import pytest
import torch

from training.config import TrainConfig
from training.dataset import Dataset
from training.machine import machine
from training.model.manifest import InputSpec
from training.run import Run, fit


@pytest.mark.gpu
def test_a_step_replayed_as_a_graph_learns_what_a_plain_one_does(
    data: Dataset, recipe: TrainConfig, tmp_path: Path
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device on this host")
    histories = []
    for graphs in (False, True):
        with machine("cuda", threads=1, compiles=False, graphs=graphs) as here:
            run = Run(data, recipe, InputSpec(), tmp_path / str(graphs), here)
            histories.append(fit(run))
    for plain, replayed in zip(*histories, strict=True):
        assert replayed["loss"] == pytest.approx(plain["loss"], abs=0.05)
