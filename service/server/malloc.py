"""The C library's heap, kept from growing with every large picture that was ever seen.

By itself glibc gives each thread an arena of its own that keeps what it once held, and learns from
each large buffer to take the next one, up to 32 MiB, from there too: memory rises for as long as
rarer sizes and coincidences come. Here all threads share one arena, so that what one freed serves
the others; large buffers go straight back to the system; and twice a minute so does all that is
free: only of the one arena does glibc give back the end as well. Not its duty: Python's own small
objects, and what the GPU holds.
"""

import ctypes
import threading
from typing import Any

TRIM_EVERY_S = 30.0
"""A trim takes one to three milliseconds of a busy service, in which no thread can allocate."""

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

# Larger buffers come from the system and go back to it. That costs a page fault for every 4 KiB:
# at 1 MiB, below what layers hold of 8 faces, inference took a third longer. At 32 faces the
# shipped network's largest are 4.5 MiB.
_MMAP_THRESHOLD_BYTES = 8 << 20
# Free memory at the heap's end that is kept until the next trim: more than a batch needs, or each
# one would ask for it anew.
_TRIM_THRESHOLD_BYTES = 64 << 20


def tune_malloc(library: Any = None) -> threading.Thread | None:
    """Bound how much freed memory this process keeps; early, before it has threads.

    Does nothing where the C library is not glibc (musl, macOS): theirs have no such habit.

    Args:
        library: The C library; None is this process's own.

    Returns:
        The thread that trims, which ends with the process; None where there is nothing to do.
    """
    library = ctypes.CDLL(None) if library is None else library
    if not hasattr(library, "gnu_get_libc_version"):
        return None
    library.mallopt(_M_ARENA_MAX, 1)
    library.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
    library.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
    thread = threading.Thread(
        target=trim_now_and_then, args=(library, threading.Event()), name="heap", daemon=True
    )
    thread.start()
    return thread


def trim_now_and_then(
    library: Any, stopped: threading.Event, every_s: float = TRIM_EVERY_S
) -> None:
    """Give free memory back to the system, again and again; the interpreter runs on meanwhile.

    Args:
        library: The C library.
        stopped: Ends it.
        every_s: Seconds between two times.
    """
    while not stopped.wait(every_s):
        library.malloc_trim(0)
