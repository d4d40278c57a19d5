"""Compares a network's probabilities with the votes of several annotators for each face."""

from dataclasses import dataclass

import torch
from torch import Tensor

SHARES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Lower ends of the bins, by the leading emotion's share of the votes."""


@dataclass(frozen=True)
class Bin:
    """Faces with a similar agreement of the annotators.

    Attributes:
        least: Smallest share of the votes for the leading emotion, 0 to 1; all shares are below
            `least` of the next bin.
        faces: Number of faces.
        accuracy: Share of them that were recognised as the leading emotion; 0 for an empty bin.
    """

    least: float
    faces: int
    accuracy: float


@dataclass(frozen=True)
class Agreement:
    """Agreement over the faces of one split.

    Attributes:
        cross_entropy: Mean cross-entropy of the probabilities with the shares of votes, in nats.
        entropy: Mean entropy of the shares, in nats: the lower bound of the cross-entropy.
        bins: Accuracy by the agreement of the annotators.
    """

    cross_entropy: float
    entropy: float
    bins: tuple[Bin, ...]


def agreement(logits: Tensor, shares: Tensor) -> Agreement:
    """Compare a network with the votes.

    Args:
        logits: float32[n, classes], divided by the temperature.
        shares: float32[n, classes], the shares of the votes; rows sum to 1.

    Returns:
        The agreement.
    """
    log_probabilities = logits.log_softmax(1)
    leading, label = shares.max(1)
    correct = log_probabilities.argmax(1) == label
    # Shares are quotients of small counts: rounding must not put 0.6 into the bin below 0.6.
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
