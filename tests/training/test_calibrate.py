import pytest
import torch

from training.calibrate import fit_temperature
from training.evaluate import score


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_finds_the_temperature_that_labels_were_drawn_at(temperature: float) -> None:
    torch.manual_seed(0)
    logits = 3.0 * torch.randn(20_000, 7)
    labels = torch.multinomial((logits / temperature).softmax(1), 1).squeeze(1)
    targets = torch.eye(7)[labels]
    fitted = fit_temperature(logits, targets)
    assert fitted == pytest.approx(temperature, rel=0.05)
    assert score(logits, targets, fitted).calibration_error < 0.02


def test_stays_bounded_where_every_answer_is_right() -> None:
    targets = torch.eye(7)
    assert fit_temperature(10 * targets, targets) >= 0.05
