import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from training.config import AugmentConfig, TrainConfig
from training.dataset import Dataset, Split
from training.machine import Machine, machine
from training.model.checkpoint import Checkpoint
from training.model.labels import FER2013_EMOTIONS
from training.model.manifest import Manifest, NetworkConfig
from training.model.network import AttentionFER


def made_up(per_class: int, seed: int) -> Split:
    """Faces whose emotion is the width of their stripes: quickly learnt, never real."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(7).repeat_interleave(per_class)
    faces = torch.randint(0, 120, (len(labels), 48, 48), dtype=torch.uint8, generator=generator)
    for face, label in zip(faces, labels.tolist(), strict=True):
        face[torch.arange(48) // (label + 1) % 2 == 0] += 120
    return Split(faces, torch.nn.functional.one_hot(labels, 7).float())


def teacher(emotions: tuple[str, ...], seed: int, temperature: float = 1.0) -> Checkpoint:
    """A small network that knows nothing, but names these emotions."""
    torch.manual_seed(seed)
    config = NetworkConfig(widths=(4,), depths=(1,), classes=len(emotions))
    network = AttentionFER(config).eval()
    torch.nn.init.normal_(network.classify.weight)
    manifest = Manifest("teacher", "1", config, emotions, temperature=temperature)
    return Checkpoint(network, manifest)


@pytest.fixture(autouse=True)
def cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A cache folder of the test's own; what it keeps of real faces does not stay."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    yield folder / "attention-fer" / "faces"
    shutil.rmtree(folder)


def made_up_data(train_per_class: int = 12, per_class: int = 4) -> Dataset:
    return Dataset(
        name="made-up",
        emotions=FER2013_EMOTIONS,
        train=made_up(train_per_class, 0),
        validation=made_up(per_class, 1),
        test=made_up(per_class, 2),
        fingerprint="f" * 64,
    )


@pytest.fixture
def data() -> Dataset:
    return made_up_data()


@pytest.fixture
def few() -> Dataset:
    """As `data`, with few faces: for runs of which only the order counts, not what they learn."""
    return made_up_data(2, 1)


@pytest.fixture
def recipe() -> TrainConfig:
    return quick_recipe()


def quick_recipe() -> TrainConfig:
    return TrainConfig(
        network=NetworkConfig(widths=(8, 16), depths=(1, 1)),
        augment=AugmentConfig(shift=0.02, rotate_deg=3.0, scale=0.02, erase=0.0, mixup=0.0),
        epochs=3,
        batch_size=16,
        learning_rate=1e-2,
        warmup_epochs=0.5,
        ema_decay=0.8,
    )


@pytest.fixture
def cpu() -> Iterator[Machine]:
    before = torch.get_num_threads()
    with machine("cpu", threads=1) as here:
        yield here
    torch.set_num_threads(before)
