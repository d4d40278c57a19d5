"""How many faces a batch may have: the best of the sizes that were timed at start."""

from service.engine.contract import BatchSeconds

_UNMEASURED_LIMIT = 32
# What a larger batch must gain, since its faces wait longer. A busy service gains more than the
# engine alone: where 32 faces took 1.5 to 3.5 % less than 16 here, it answered 5 % more requests.
_WORTH = 0.01


def best_batch(seconds: BatchSeconds) -> int:
    """Choose the limit: the smallest batch that is nearly as fast a face as the best one.

    Args:
        seconds: As measured.

    Returns:
        Number of faces: one of the measured sizes, or a default where there are none.
    """
    if not seconds:
        return _UNMEASURED_LIMIT
    a_face = {size: taken / size for size, taken in seconds.items()}
    enough = min(a_face.values()) / (1 - _WORTH)
    return min(size for size, taken in a_face.items() if taken <= enough)
