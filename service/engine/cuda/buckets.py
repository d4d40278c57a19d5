"""The batch sizes with a CUDA graph, and a pool of buffer sets.

A CUDA graph replays one size. Batches are padded to the next of a few sizes, and the result is cut.
"""

from bisect import bisect_left
from typing import Generic, TypeVar

_T = TypeVar("_T")


def buckets(max_batch: int) -> tuple[int, ...]:
    """Return the sizes: 1, 2, 4 ... and the largest.

    At most half of a batch is padding. Less than half of the time is lost, since the device
    computes a few faces about as fast as one.

    Args:
        max_batch: Faces in the largest batch, 1 or more.
    """
    powers = (1 << power for power in range((max_batch - 1).bit_length()))
    return (*powers, max_batch)


def find_bucket(sizes: tuple[int, ...], count: int) -> int:
    """Return the index of the smallest size for `count` faces.

    Args:
        sizes: Ascending.
        count: Faces, 1 or more.

    Raises:
        ValueError: No size is large enough.
    """
    index = bisect_left(sizes, count)
    if not 1 <= count <= sizes[-1]:
        raise ValueError(f"{count} faces, expected 1 to {sizes[-1]}")
    return index


class BufferPool(Generic[_T]):
    """A pool of objects, each used by one batch at a time; used in one thread."""

    def __init__(self, items: tuple[_T, ...]) -> None:
        """Create the pool; all objects are free."""
        self._free = list(items)

    def take(self) -> _T:
        """Take the object that has been free for longest.

        Raises:
            RuntimeError: None is free.
        """
        if not self._free:
            raise RuntimeError("more batches were begun than can be at once")
        return self._free.pop(0)

    def release(self, item: _T) -> None:
        """Return an object to the pool."""
        self._free.append(item)
