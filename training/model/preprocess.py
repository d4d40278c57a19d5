"""What a face must look like, and the one way from its bytes to what the network sees.

Training and service both call `normalise`, so that they cannot drift apart.
Not its duty: decoding, cropping and resizing pictures; they end in uint8 faces before this.
"""

import torch
from torch import Tensor

from training.model.manifest import InputSpec


def normalise(faces: Tensor, spec: InputSpec) -> Tensor:
    """Turn face bytes into the network's input, on the device that they are on.

    Args:
        faces: uint8[n, height, width], 0-255, grey.
        spec: The input spec of the checkpoint.

    Returns:
        float32[n, 1, height, width], about zero mean and unit deviation over the training set.
    """
    scale, shift = 1.0 / (255.0 * spec.std), -spec.mean / spec.std
    return faces.unsqueeze(1).to(torch.float32).mul_(scale).add_(shift)
