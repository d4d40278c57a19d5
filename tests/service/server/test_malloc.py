"""Tests of `service.server.malloc`: what the C library is told, and that it obeys."""

import ctypes
import subprocess
import sys
import threading

import pytest

from service.server.malloc import trim_periodically, tune_malloc
from tests.service.server_processes import REPOSITORY


class Glibc:
    """A C library that remembers what it was told, and stops who trims it a third time."""

    def __init__(self) -> None:
        self.options: dict[int, int] = {}
        self.trims: list[int] = []
        self.stopped = threading.Event()

    def gnu_get_libc_version(self) -> bytes:
        return b"2.36"

    def mallopt(self, option: int, value: int) -> int:
        self.options[option] = value
        return 1

    def malloc_trim(self, keep: int) -> int:
        self.trims.append(keep)
        if len(self.trims) == 3:
            self.stopped.set()
        return 1


def test_three_options_are_fixed_and_a_thread_trims() -> None:
    library = Glibc()
    thread = tune_malloc(library)
    assert library.options == {-8: 1, -3: 8 << 20, -1: 64 << 20}
    assert thread is not None
    assert thread.is_alive()
    assert thread.daemon  # the process need not wait for it


def test_trimming_goes_on_until_it_is_stopped() -> None:
    library = Glibc()
    trim_periodically(library, library.stopped, every_s=0.0)
    assert library.trims == [0, 0, 0]


def test_other_libraries_are_left_alone() -> None:
    class Musl:
        """Has nothing to call."""

    assert tune_malloc(Musl()) is None


_PROGRAM = """
import ctypes, threading
from service.server.malloc import tune_malloc, trim_periodically

class Figures(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks mapped usmblks fsmblks used free top".split()
    ]

class Once:  # the library, trimmed once
    stopped = threading.Event()

    def malloc_trim(self, keep):
        library.malloc_trim(keep)
        self.stopped.set()

library = ctypes.CDLL(None)
library.mallinfo2.restype = Figures
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]
assert tune_malloc() is not None
for _ in range(2):  # by itself it would take the second one from an arena
    before = library.mallinfo2().mapped
    block = library.malloc(16 << 20)
    assert library.mallinfo2().mapped - before >= 16 << 20
    library.free(block)
    assert library.mallinfo2().mapped == before
# Below the threshold, in another thread: from the one arena, which keeps it for everybody.
thread = threading.Thread(target=lambda: library.free(library.malloc(7 << 20)))
thread.start()
thread.join()
assert library.mallinfo2().mapped == before
assert library.mallinfo2().top > 6 << 20
trim_periodically(Once(), Once.stopped, 0.0)
assert library.mallinfo2().top < 1 << 20
"""


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="the C library here is no recent glibc"
)
def test_large_blocks_go_back_and_small_ones_are_kept_for_all_until_the_next_trim() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
