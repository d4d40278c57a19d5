"""Tunes malloc, so that the process's memory does not keep growing with large pictures.

By default glibc gives each thread its own arena, which keeps freed memory. It also raises the
threshold above which it maps buffers separately, up to 32 MiB, with each large buffer it frees. So
memory grows for a long time. Here all threads share one arena, so that they reuse each other's
freed memory; large buffers are returned to the system at once; and a trim every 30 seconds returns
all other free memory. glibc trims the end of the heap only in the main arena.

oneDNN keeps what it prepared for each convolution at each size of picture, by default 1,024 of
them, and the face detector sees many sizes. With 256 it keeps 50 MB less and takes no longer:
12.4 CPU s for 240 photographs of 120 sizes with either number, 14.1 with 128.
"""

import ctypes
import os
import threading
from typing import Any

_PRIMITIVES_KEPT = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"  # oneDNN reads it at its first operator
TRIM_EVERY_S = 30.0
"""A trim takes 1 to 3 ms in a busy service; no thread can allocate meanwhile."""

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

# Larger buffers are mapped separately. That costs a page fault for every 4 KiB: at 1 MiB, which is
# less than the activations of 8 faces, inference took a third longer. At 32 faces the shipped
# network's largest buffers have 4.5 MiB.
_MMAP_THRESHOLD_BYTES = 8 << 20
# Free memory at the heap's end that is kept until the next trim: more than a batch needs, so that
# batches reuse it.
_TRIM_THRESHOLD_BYTES = 64 << 20


def tune_malloc(library: Any = None) -> threading.Thread | None:
    """Bound how much freed memory this process keeps; to be called before it starts threads.

    Does nothing with another C library than glibc (musl, macOS), which do not need it.

    Args:
        library: The C library; None is that of this process.

    Returns:
        The daemon thread that trims; None with another C library.
    """
    os.environ.setdefault(_PRIMITIVES_KEPT, "256")
    library = ctypes.CDLL(None) if library is None else library
    if not hasattr(library, "gnu_get_libc_version"):
        return None
    library.mallopt(_M_ARENA_MAX, 1)
    library.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
    library.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
    thread = threading.Thread(
        target=trim_periodically, args=(library, threading.Event()), name="heap", daemon=True
    )
    thread.start()
    return thread


def trim_periodically(
    library: Any, stopped: threading.Event, every_s: float = TRIM_EVERY_S
) -> None:
    """Return free memory to the system periodically; the call releases the GIL.

    Args:
        library: The C library.
        stopped: Ends the loop.
        every_s: Seconds between two trims.
    """
    while not stopped.wait(every_s):
        library.malloc_trim(0)
