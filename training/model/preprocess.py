"""What a face must look like, and the one way from its bytes to what the network sees.

Training and service both call `normalise`, so that they cannot drift apart.
Not its duty: decoding, cropping and resizing pictures; they end in uint8 faces before this.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Resample = Literal["bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True)
class InputSpec:
    """The face a checkpoint was trained on.

    Attributes:
        height: Rows of a face, in pixels.
        width: Columns of a face, in pixels.
        mean: Mean grey level of the training faces, 0 to 1.
        std: Standard deviation of their grey levels, 0 to 1.
        resample: Pillow's filter, by name, with which a larger picture becomes a face.
    """

    height: int = 48
    width: int = 48
    mean: float = 0.5077
    std: float = 0.2550
    resample: Resample = "bilinear"

    def __post_init__(self) -> None:
        """Refuse what no network here could take.

        Raises:
            ValueError: A side outside 16 to 512, a mean outside 0 to 1, a std not positive,
                or a filter that is not named above.
        """
        for name in ("height", "width"):
            side = getattr(self, name)
            if not isinstance(side, int) or not 16 <= side <= 512:
                raise ValueError(f"input spec: {name} is {side!r}, expected 16 to 512 pixels")
        if not 0.0 <= self.mean <= 1.0:
            raise ValueError(f"input spec: mean is {self.mean!r}, expected 0 to 1")
        if not 0.0 < self.std <= 1.0:
            raise ValueError(f"input spec: std is {self.std!r}, expected above 0, up to 1")
        if self.resample not in ("bilinear", "bicubic", "lanczos"):
            raise ValueError(f"input spec: resample is {self.resample!r}")


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
