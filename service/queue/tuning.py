"""How many faces a batch may have: a few sizes are timed at start, and the best is the limit.

How fast the engine is later, beside everything else that the machine does, is another matter.
"""

import time
from collections.abc import Callable, Mapping
from math import inf

import numpy as np

from service.queue.ticket import Faces, Probabilities

BatchSeconds = Mapping[int, float]
"""What batches take, in seconds by their faces; empty where nobody measured."""

_LARGEST_ON_CPU, _LARGEST_ON_CUDA = 32, 256
_UNMEASURED_LIMIT = 32
# What a larger batch must gain to be worth its longer wait. Beside the engine it saves more: where
# 32 faces at once gained 1.5 to 3.5 % over 16 here, a busy service answered 5 % more.
_WORTH = 0.01


def largest(device: str) -> int:
    """Return the largest batch worth trying on a device, e.g. "cpu" or "cuda:0"."""
    return _LARGEST_ON_CUDA if device.startswith("cuda") else _LARGEST_ON_CPU


def batch_seconds(
    infer: Callable[[Faces], Probabilities],
    height: int,
    width: int,
    max_batch: int,
    clock: Callable[[], float] = time.perf_counter,
    budget_s: float = 0.6,
) -> dict[int, float]:
    """Time batches of 1, 2, 4 ... and `max_batch` faces; in the thread that may call `infer`.

    Each is run once before, so that no request pays for kernels being set up.

    Args:
        infer: uint8[n, height, width] to float32[n, classes].
        height: Of a face, in pixels.
        width: Likewise.
        max_batch: The largest to run, 1 or more.
        clock: Seconds that only go forward.
        budget_s: No more rounds are begun after so many seconds; at least one is.

    Returns:
        The least time of each, in seconds by faces.
    """
    sizes = [*(1 << power for power in range((max_batch - 1).bit_length())), max_batch]
    batches = [np.zeros((size, height, width), np.uint8) for size in sizes]
    for batch in batches:
        infer(batch)
    least = dict.fromkeys(sizes, inf)
    stop = clock() + budget_s
    while True:
        # Size after size and not one at a time: a busy moment of the machine meets all of them.
        for size, batch in zip(sizes, batches, strict=True):
            started = clock()
            infer(batch)
            least[size] = min(least[size], clock() - started)
        if clock() >= stop:
            return least


def best_batch(seconds: BatchSeconds) -> int:
    """Choose the limit: the smallest batch that is as good as the best, since it answers sooner.

    Args:
        seconds: As measured.

    Returns:
        Faces: of the sizes measured, or a usual one where there are none.
    """
    if not seconds:
        return _UNMEASURED_LIMIT
    a_face = {size: taken / size for size, taken in seconds.items()}
    enough = min(a_face.values()) / (1 - _WORTH)
    return min(size for size, taken in a_face.items() if taken <= enough)
