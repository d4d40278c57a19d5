"""The average of a network over its recent steps: steadier than its last state."""

import copy

import torch
from torch import Tensor

from training.model.network import AttentionFER


class Ema:
    """Exponential moving average of weights and running statistics.

    The decay warms up as (1 + t) / (10 + t), so that the first epochs are not an average with
    the initial weights.
    """

    def __init__(self, network: AttentionFER, decay: float) -> None:
        """Start from a copy of `network`, averaged with `decay` (0 to below 1) at each update."""
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: AttentionFER, step: int) -> None:
        """Move the average towards `network`, after step number `step`, from 0."""
        share = 1.0 - min(self.decay, (1.0 + step) / (10.0 + step))
        averaged, current = _floats(self.network), _floats(network)
        torch._foreach_lerp_(averaged, current, share)


def _floats(network: AttentionFER) -> list[Tensor]:
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
