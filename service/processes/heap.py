"""The C library's heap, kept from growing with every large picture that was ever seen.

By itself glibc gives each thread an arena that never shrinks below what it once held, and learns
from each large buffer to take the next one, up to 32 MiB, from there too: memory rises for as long
as rarer sizes and coincidences come. With one arena what one thread freed serves all others, and
with fixed thresholds pictures go back to the system. Measured under hostile pictures, two decoding
threads beside inference: flat at 361 MiB from the first hundreds to 25,000, where glibc's own rose
from 336 to 345 and went on; inference of 1, 8 and 32 faces no slower. Not its duty: Python's own
small objects, and what the GPU holds.
"""

import ctypes
from typing import Any

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

# Larger buffers come from the system and go back to it. That costs a page fault for every 4 KiB:
# at 1 MiB, below what layers hold of 8 faces, inference took a third longer. At 32 faces the
# shipped network's largest are 4.5 MiB.
_MMAP_THRESHOLD_BYTES = 8 << 20
# Free memory at the heap's end that is kept: more than a batch needs, or each one would ask for it
# anew.
_TRIM_THRESHOLD_BYTES = 64 << 20


def steady_heap(library: Any = None) -> bool:
    """Fix how much freed memory this process keeps; early, before it has threads.

    Does nothing where the C library is not glibc (musl, macOS): theirs have no such habit.

    Args:
        library: The C library; None is this process's own.

    Returns:
        Whether it took effect.
    """
    library = ctypes.CDLL(None) if library is None else library
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    options = (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES),
        (_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES),
    )
    taken = [library.mallopt(option, value) for option, value in options]
    return all(taken)
