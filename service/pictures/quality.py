"""How good the pixels of a face are."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# What `usable` asks for.
LEAST_SIZE, LEAST_SHARPNESS, DARKEST, BRIGHTEST = 24.0, 0.05, 0.1, 0.95


@dataclass(frozen=True)
class Quality:
    """What can be said of a face's pixels without knowing the face.

    Attributes:
        size: Longer side of the face in the original, in pixels.
        sharpness: Mean difference of a pixel from its four neighbours' mean, as a share of the
            crop's contrast (standard deviation); 0 is a blur, 0.1 to 0.4 are photographs.
        brightness: Mean grey level of the crop, 0 to 1.
    """

    size: float
    sharpness: float
    brightness: float

    @property
    def usable(self) -> bool:
        """Whether an answer about this face is worth having: large, sharp and lit enough."""
        lit = DARKEST <= self.brightness <= BRIGHTEST
        return lit and self.size >= LEAST_SIZE and self.sharpness >= LEAST_SHARPNESS


def judge(pixels: npt.NDArray[np.uint8], size: float) -> Quality:
    """Judge a face.

    Args:
        pixels: uint8[h, w], 0-255, as the network takes it.
        size: Its longer side in the original, in pixels.
    """
    grey = pixels.astype(np.float32)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    detail = float(np.abs(grey[1:-1, 1:-1] - around / 4).mean()) if around.size else 0.0
    sharpness = detail / max(float(grey.std()), 1.0)
    return Quality(round(size, 1), round(sharpness, 3), round(float(grey.mean()) / 255, 3))
