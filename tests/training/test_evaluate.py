import pytest
import torch

from training.evaluate import predict, reliability, score
from training.machine import Machine
from training.model.manifest import InputSpec, NetworkConfig
from training.model.network import AttentionFER

# labels 0 0 0 1 1 2, called 0 0 1 1 1 0
LABELS = torch.eye(3)[torch.tensor([0, 0, 0, 1, 1, 2])]
CALLED = 10.0 * torch.eye(3)[torch.tensor([0, 0, 1, 1, 1, 0])]


def test_figures_of_a_known_confusion() -> None:
    scores = score(CALLED, LABELS)
    assert scores.faces == 6
    assert scores.confusion == ((2, 1, 0), (0, 2, 0), (1, 0, 0))
    assert scores.accuracy == pytest.approx(4 / 6)
    assert scores.recall == pytest.approx((2 / 3, 1.0, 0.0))
    # F1 of each: 2*2/(3+3), 2*2/(3+2), 0
    assert scores.macro_f1 == pytest.approx((2 / 3 + 4 / 5 + 0) / 3)


def test_cross_entropy_of_certainty_and_of_ignorance() -> None:
    assert score(LABELS * 100, LABELS).cross_entropy == pytest.approx(0.0, abs=1e-6)
    nothing = score(torch.zeros(6, 3), LABELS)
    assert nothing.cross_entropy == pytest.approx(torch.log(torch.tensor(3.0)).item())


def test_temperature_changes_confidence_and_not_the_call() -> None:
    sharp, flat = score(CALLED, LABELS), score(CALLED, LABELS, temperature=50.0)
    assert sharp.accuracy == flat.accuracy
    assert sharp.calibration_error > flat.calibration_error


def test_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    # Always 90 % sure, right half of the time.
    logits = torch.tensor([[0.9, 0.1]]).log().repeat(10, 1)
    bins = reliability(logits, torch.tensor([0, 1] * 5))
    assert bins.error == pytest.approx(0.4, abs=1e-6)
    assert sum(bins.faces) == 10
    assert bins.confidence[13] == pytest.approx(0.9)
    assert bins.accuracy[13] == pytest.approx(0.5)


def test_predict_takes_every_face_whatever_the_batch(cpu: Machine) -> None:
    torch.manual_seed(0)
    network = AttentionFER(NetworkConfig(widths=(8,), depths=(1,))).eval()
    faces = torch.randint(0, 256, (10, 48, 48), dtype=torch.uint8)
    whole = predict(network, faces, InputSpec(), cpu)
    parts = predict(network, faces, InputSpec(), cpu, batch_size=3)
    assert whole.shape == (10, 7)
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=1e-4)


def test_flip_averaging_cannot_tell_a_face_from_its_mirror(cpu: Machine) -> None:
    torch.manual_seed(0)
    network = AttentionFER(NetworkConfig(widths=(8,), depths=(1,))).eval()
    faces = torch.randint(0, 256, (4, 48, 48), dtype=torch.uint8)
    here = predict(network, faces, InputSpec(), cpu, flip=True)
    there = predict(network, faces.flip(-1), InputSpec(), cpu, flip=True)
    torch.testing.assert_close(here, there, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(here, predict(network, faces, InputSpec(), cpu), atol=1e-3)


def test_mean_recall_is_of_the_emotions_that_are_there() -> None:
    labels = torch.eye(4)[torch.tensor([0, 0, 0, 1, 1, 2])]
    called = 10.0 * torch.eye(4)[torch.tensor([0, 0, 1, 1, 1, 3])]
    scores = score(called, labels)
    assert scores.recall[3] is None
    assert scores.mean_recall == pytest.approx((2 / 3 + 1.0 + 0.0) / 3)


def test_weights_stand_for_that_many_faces() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(30, 3), torch.eye(3)[torch.arange(30) % 3]
    counts = torch.arange(30) % 4 + 1
    weights = counts.double() / counts.double().mean()
    weighted = score(logits, labels, weights=weights)
    repeated = score(logits.repeat_interleave(counts, 0), labels.repeat_interleave(counts, 0))
    assert weighted.calibration_error == pytest.approx(repeated.calibration_error)
    assert weighted.cross_entropy == pytest.approx(repeated.cross_entropy, rel=1e-5)
