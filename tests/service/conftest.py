"""What several of the service's tests need: fresh metrics, a checkpoint of random weights."""

from pathlib import Path

import pytest
import torch
from prometheus_client import CollectorRegistry

from service.kernels import Kernels, files, load
from service.telemetry.metrics import Metrics
from training.model.checkpoint import save_checkpoint
from training.model.labels import FER2013_EMOTIONS
from training.model.manifest import Manifest, NetworkConfig
from training.model.network import AttentionFER


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics(CollectorRegistry())
    metrics.describe_model("attention-fer-test", "0", "cpu", "training", FER2013_EMOTIONS)
    return metrics


@pytest.fixture
def random_checkpoint(tmp_path: Path) -> Path:
    config = NetworkConfig(widths=(8, 16), depths=(1, 1))
    path = tmp_path / "random.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AttentionFER(config)
    manifest = Manifest("attention-fer-test", "0", config, FER2013_EMOTIONS)
    save_checkpoint(path, network, manifest, torch.float32)
    return path


@pytest.fixture(
    params=[*files(), *([] if files() else [None])], ids=lambda path: path and path.stem
)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    path: Path | None = request.param
    if path is None:
        pytest.skip("there are no kernels in C for this CPU")
    if not path.exists():
        pytest.skip("the kernels are not compiled (make setup, with a C compiler)")
    return load(path)
