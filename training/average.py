"""One network whose weights are the mean of several that began alike.

Wortsman et al. 2022, "Model soups", arXiv:2203.05482: runs of different seeds from the same weights
end in the same valley, and between them it is lower. Unlike an ensemble it costs nothing to serve.
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
        checkpoints: One or more, alike in shape, emotions and input spec; from one start, or the
            mean is of no use.

    Returns:
        The mean; its manifest is the first one's, and its provenance names all. Of one checkpoint
        that one.

    Raises:
        ValueError: They are not alike.
    """
    first = checkpoints[0]
    if len(checkpoints) == 1:
        return first
    for other in checkpoints[1:]:
        for what in ("network", "emotions", "input_spec"):
            if getattr(other.manifest, what) != getattr(first.manifest, what):
                raise ValueError(f"runs of another {what} cannot be averaged")
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
