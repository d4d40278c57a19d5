import math

import pytest
import torch

from training.agreement import agreement

SHARES = torch.tensor([[1.0, 0.0], [0.6, 0.4], [0.5, 0.5], [0.1, 0.9]])


def test_the_votes_themselves_agree_best() -> None:
    found = agreement(SHARES.clamp(min=1e-9).log(), SHARES)
    assert found.cross_entropy == pytest.approx(found.entropy, abs=1e-6)
    uniform = agreement(torch.zeros(4, 2), SHARES)
    assert uniform.cross_entropy == pytest.approx(math.log(2))
    assert uniform.cross_entropy > found.entropy


def test_faces_are_binned_by_how_many_agreed() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    bins = {b.least: (b.faces, b.accuracy) for b in agreement(logits, SHARES).bins}
    assert bins == {
        0.0: (0, 0.0),
        0.5: (1, 1.0),
        0.6: (1, 0.0),
        0.7: (0, 0.0),
        0.8: (0, 0.0),
        0.9: (1, 1.0),
        1.0: (1, 1.0),
    }
