"""Times batches of several sizes at start, for `service.queue.tuning`."""

import time
from collections.abc import Callable
from math import inf

import numpy as np

from service.engine.contract import Infer

_LARGEST_ON_CPU, _LARGEST_ON_CUDA = 32, 256


def largest(device: str) -> int:
    """Return the largest batch worth trying on a device, e.g. "cpu" or "cuda:0"."""
    return _LARGEST_ON_CUDA if device.startswith("cuda") else _LARGEST_ON_CPU


def batch_seconds(
    infer: Infer,
    height: int,
    width: int,
    max_batch: int,
    clock: Callable[[], float] = time.perf_counter,
    budget_s: float = 0.6,
) -> dict[int, float]:
    """Time batches of 1, 2, 4 ... and `max_batch` faces; in the thread that may call `infer`.

    Each is run once before, so that the set-up of kernels delays no request.

    Args:
        infer: uint8[n, height, width] to float32[n, classes].
        height: Of a face, in pixels.
        width: Of a face, in pixels.
        max_batch: The largest size, 1 or more.
        clock: Monotonic, in seconds.
        budget_s: No round begins after so many seconds, except the first.

    Returns:
        The shortest time of each size, in seconds by faces.
    """
    sizes = [*(1 << power for power in range((max_batch - 1).bit_length())), max_batch]
    batches = [np.zeros((size, height, width), np.uint8) for size in sizes]
    for batch in batches:
        infer(batch)
    least = dict.fromkeys(sizes, inf)
    stop = clock() + budget_s
    while True:
        # All sizes in each round, so that a busy moment of the machine affects all of them.
        for size, batch in zip(sizes, batches, strict=True):
            started = clock()
            infer(batch)
            least[size] = min(least[size], clock() - started)
        if clock() >= stop:
            return least
