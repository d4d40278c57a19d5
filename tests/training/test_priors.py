import dataclasses

import pytest
import torch

from training.dataset import Dataset, Split
from training.model.labels import FER2013_EMOTIONS
from training.model.manifest import Manifest, NetworkConfig
from training.model.prior import named_prior
from training.priors import fit_temperatures, score_under, stated_prior, weights_to

TRAINING = (0.6, 0.3, 0.1)


def test_weights_make_a_split_as_frequent_as_a_prior() -> None:
    labels = torch.tensor([0] * 70 + [1] * 20 + [2] * 10)
    weights = weights_to(labels, (0.2, 0.5, 0.3))
    shares = torch.zeros(3, dtype=torch.float64).index_add(0, labels, weights) / len(labels)
    torch.testing.assert_close(shares, torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64))
    assert float(weights.mean()) == pytest.approx(1.0)


def test_an_emotion_without_a_face_leaves_its_share_to_the_others() -> None:
    labels = torch.tensor([0] * 5 + [1] * 5)
    weights = weights_to(labels, (0.25, 0.25, 0.5))
    assert weights.tolist() == pytest.approx([1.0] * 10)


def drawn(count: int, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a network that is `temperature` too sure under TRAINING, and labels."""
    torch.manual_seed(0)
    labels = torch.multinomial(torch.tensor(TRAINING), count, replacement=True)
    centres = 1.5 * torch.eye(3)
    seen = centres[labels] + torch.randn(count, 3)
    likelihoods = -0.5 * (seen[:, None] - centres).square().sum(2)
    posterior = (likelihoods + torch.tensor(TRAINING).log()).log_softmax(1)
    return posterior * temperature, torch.eye(3)[labels]


def test_a_network_that_is_right_but_too_sure_has_one_temperature_for_training() -> None:
    logits, targets = drawn(20_000, 2.0)
    assert fit_temperatures(logits, targets, TRAINING)["training"] == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("name", ["uniform", "balanced", "training"])
def test_probabilities_are_calibrated_under_each_prior(name: str) -> None:
    logits, targets = drawn(20_000, 1.7)
    manifest = Manifest(
        "m", "1", NetworkConfig(classes=3), ("a", "b", "c"), temperature=0.8, prior=TRAINING,
        temperatures=fit_temperatures(logits, targets, TRAINING),
    )  # fmt: skip
    split = Split(torch.zeros(len(logits), 1, 1, dtype=torch.uint8), targets)
    scores = score_under(logits, split, manifest, named_prior(TRAINING, name))
    assert scores.calibration_error < 0.025
    if name == "uniform":
        before = score_under(logits, split, manifest, TRAINING)
        assert scores.mean_recall > before.mean_recall
        assert scores.accuracy < before.accuracy


def test_the_stated_prior_is_of_the_targets_that_were_learnt(data: Dataset) -> None:
    split = Split(data.train.faces, torch.tensor([[0.0, 1.0]]).repeat(len(data.train), 1))
    second = dataclasses.replace(data, emotions=("neutral", "happiness"), train=split)
    both = dataclasses.replace(data, second=second)
    plain, mixed = stated_prior(both, {}), stated_prior(both, {"label_share": 0.5})
    assert plain == pytest.approx((1 / 7,) * 7)
    happiness = FER2013_EMOTIONS.index("happiness")
    assert mixed[happiness] == pytest.approx(0.5 / 7 + 0.5)
    assert sum(mixed) == pytest.approx(1.0)
