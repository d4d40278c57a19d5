"""Which sizes of batch a graph is kept for, and which of two sets of buffers a batch uses.

A CUDA graph replays one size. Batches are padded to the next of a few sizes, and the answer is cut.
Not its duty: CUDA (`service.engine.cuda.graphs`).
"""

from bisect import bisect_left
from typing import Generic, TypeVar

_T = TypeVar("_T")


def buckets(max_batch: int) -> tuple[int, ...]:
    """Return the sizes: 1, 2, 4 ... and the largest.

    At most half of a batch is padding, and as the device computes few faces about as fast as one
    face, less than half of the time is.

    Args:
        max_batch: Faces in the largest batch, 1 or more.
    """
    powers = (1 << power for power in range((max_batch - 1).bit_length()))
    return (*powers, max_batch)


def bucket_of(sizes: tuple[int, ...], count: int) -> int:
    """Return the place of the smallest size that holds `count` faces.

    Args:
        sizes: Ascending.
        count: Faces, 1 or more.

    Raises:
        ValueError: None does.
    """
    place = bisect_left(sizes, count)
    if not 1 <= count <= sizes[-1]:
        raise ValueError(f"{count} faces, expected 1 to {sizes[-1]}")
    return place


class Turns(Generic[_T]):
    """Things used in turn, each by one batch at a time; from one thread.

    As many batches may be begun and not finished as there are things.
    """

    def __init__(self, things: tuple[_T, ...]) -> None:
        """Keep them, all free."""
        self._free = list(things)

    def take(self) -> _T:
        """Take the one that was given back longest ago.

        Raises:
            RuntimeError: All are taken.
        """
        if not self._free:
            raise RuntimeError("more batches were begun than can be at once")
        return self._free.pop(0)

    def give_back(self, thing: _T) -> None:
        """Let another batch have it."""
        self._free.append(thing)
