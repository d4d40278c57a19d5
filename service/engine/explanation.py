"""The explanation of one answer, as plain arrays without torch, also sent between processes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """The explanation of one face. Both maps cover the straightened face evenly.

    Attributes:
        theta: float32[2, 3], the sampling positions of the straightened face in the crop, in
            coordinates from -1 to 1; the identity for a network without STN.
        straightened: uint8[h, w], 0-255, the crop after the spatial transformer.
        attention: float32[h', w'], 0 to 1, the gate of a block's spatial attention; None for a
            network without it.
        evidence: float32[h'', w''], 0 or more, the contribution of each position to the emotion's
            logit, relative to a mean position, to first order.
    """

    theta: NDArray[np.float32]
    straightened: NDArray[np.uint8]
    attention: NDArray[np.float32] | None
    evidence: NDArray[np.float32]
