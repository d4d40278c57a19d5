"""An explanation, as it travels from the engine to the answer.

Without torch, because it also travels between processes. Not its duty: finding it
(`service.engine.evidence`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Of one face. Both maps lie over the straightened face, whose sides they divide evenly.

    Attributes:
        theta: float32[2, 3], where in the face each place of the straightened one was read, in
            coordinates of -1 to 1 from edge to edge; the identity where the network has no STN.
        straightened: uint8[h, w], 0-255, what the network went on with.
        attention: float32[h', w'], 0 to 1, how much of its features a block let through at each
            place; None where the network has no spatial attention.
        evidence: float32[h'', w''], 0 or more, how much each place spoke for the emotion, in
            logits above a mean place, to first order.
    """

    theta: NDArray[np.float32]
    straightened: NDArray[np.uint8]
    attention: NDArray[np.float32] | None
    evidence: NDArray[np.float32]
