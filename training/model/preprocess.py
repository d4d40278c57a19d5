"""Normalises faces for the network.

Training and service both call `normalise`, so that they cannot drift apart.
"""

import torch
from torch import Tensor

from training.model.manifest import InputSpec


def normalise(faces: Tensor, spec: InputSpec) -> Tensor:
    """Convert uint8 faces to the network's input, on their device.

    Args:
        faces: uint8[n, height, width], 0-255, grey.
        spec: The input spec of the checkpoint.

    Returns:
        float32[n, 1, height, width], with about zero mean and unit deviation over the training set.
    """
    scale, shift = 1.0 / (255.0 * spec.std), -spec.mean / spec.std
    return faces.unsqueeze(1).to(torch.float32).mul_(scale).add_(shift)
