"""Averages the weights of networks that were trained from the same initial weights.

Wortsman et al. 2022, "Model soups", arXiv:2203.05482: such runs with different seeds end in one
basin of the loss, and their mean often has a lower loss. Unlike an ensemble, the mean costs no more
to serve than one network.
"""

import copy
import dataclasses
from collections.abc import Sequence

import torch

from training.model.checkpoint import Checkpoint, digest


@torch.no_grad()
def average(checkpoints: Sequence[Checkpoint]) -> Checkpoint:
    """Average weights and running statistics.

    Args:
        checkpoints: One or more, with equal network shape, emotions and input spec, trained from
            the same initial weights.

    Returns:
        The mean, with the first manifest; its provenance names all checkpoints. A single checkpoint
        is returned unchanged.

    Raises:
        ValueError: They differ in shape, emotions or input spec.
    """
    first = checkpoints[0]
    if len(checkpoints) == 1:
        return first
    for other in checkpoints[1:]:
        for what in ("network", "emotions", "input_spec"):
            if getattr(other.manifest, what) != getattr(first.manifest, what):
                raise ValueError(f"runs with another {what} cannot be averaged")
    mean = copy.deepcopy(first.network)
    states = [checkpoint.network.state_dict() for checkpoint in checkpoints]
    for name, tensor in mean.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.stack([state[name] for state in states]).mean(dim=0))
    averaged = [
        {
            "weights": digest(checkpoint.network),
            "epoch": checkpoint.manifest.version,
            "recipe": checkpoint.manifest.provenance.get("recipe"),
            "start": checkpoint.manifest.provenance.get("start"),
        }
        for checkpoint in checkpoints
    ]
    provenance = dict(first.manifest.provenance) | {"average_of": averaged}
    return Checkpoint(mean, dataclasses.replace(first.manifest, provenance=provenance))
