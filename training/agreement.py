"""How a network's probabilities agree with what several annotators said of each face."""

from dataclasses import dataclass

import torch
from torch import Tensor

SHARES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Lower ends of the bins of agreement: the share of the votes that the leading emotion has."""


@dataclass(frozen=True)
class Bin:
    """The faces on whose emotion a like share of the annotators agreed.

    Attributes:
        least: Smallest share of the votes that the leading emotion has, 0 to 1; the next bin's
            is above the largest.
        faces: How many there are.
        accuracy: Share of them recognised as the leading emotion; 0 where there are none.
    """

    least: float
    faces: int
    accuracy: float


@dataclass(frozen=True)
class Agreement:
    """Agreement over the faces of one split.

    Attributes:
        cross_entropy: Mean, of the probabilities under the votes' distribution, in nats.
        entropy: Mean entropy of the votes themselves: the least that it can be, in nats.
        bins: Accuracy as a function of how many annotators agreed.
    """

    cross_entropy: float
    entropy: float
    bins: tuple[Bin, ...]


def agreement(logits: Tensor, shares: Tensor) -> Agreement:
    """Compare a network with the votes.

    Args:
        logits: float32[n, classes], divided by the temperature.
        shares: float32[n, classes], each annotators' share for each emotion, rows sum to 1.

    Returns:
        The agreement.
    """
    log_probabilities = logits.log_softmax(1)
    leading, label = shares.max(1)
    correct = log_probabilities.argmax(1) == label
    # Shares are quotients of small counts: 0.6 must not fall below 0.6 by its last bit.
    which = torch.bucketize(leading + 1e-6, torch.tensor(SHARES), right=True) - 1
    bins = []
    for number, least in enumerate(SHARES):
        inside = correct[which == number]
        accuracy = float(inside.double().mean()) if len(inside) else 0.0
        bins.append(Bin(least, len(inside), accuracy))
    return Agreement(
        cross_entropy=float(-(shares * log_probabilities).sum(1).double().mean()),
        entropy=float(torch.special.entr(shares).sum(1).double().mean()),
        bins=tuple(bins),
    )
