"""An engine for tests: it waits at a gate, remembers its batches and answers who asked."""

import asyncio
import threading
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

CLASSES = 3


def face(number: int, side: int = 2) -> NDArray[np.uint8]:
    """Return uint8[1, side, side] that carries a number in its first four bytes."""
    pixels = np.zeros(side * side, np.uint8)
    pixels[:4] = np.array([number], "<u4").view(np.uint8)
    return pixels.reshape(1, side, side)


def faces(numbers: Iterable[int]) -> NDArray[np.uint8]:
    """Return uint8[n, 2, 2] that carry the numbers."""
    return np.concatenate([face(number) for number in numbers])


def numbers_of(batch: NDArray[np.uint8]) -> list[int]:
    """Read what `faces` wrote."""
    pixels = np.ascontiguousarray(batch.reshape(len(batch), -1)[:, :4])
    return [int(number) for number in pixels.view("<u4")[:, 0]]


class GatedEngine:
    """Called in the worker; the test steps it from the event loop. Starts with the gate shut."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.poison: set[int] = set()
        self.error: BaseException = RuntimeError("poisoned")
        self.too_large = 10**9
        self._gate = threading.Semaphore(0)
        self._open = False
        self._called = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        numbers = numbers_of(batch)
        self.threads.add(threading.get_ident())
        self.batches.append(numbers)
        self._loop.call_soon_threadsafe(self._called.set)
        if not self._open:
            assert self._gate.acquire(timeout=30), "the test never let this batch go"
        if self.poison & set(numbers) or len(numbers) > self.too_large:
            raise self.error
        return self.answer(numbers)

    def answer(self, numbers: list[int]) -> NDArray[np.float32]:
        return np.array([[number, 1.0, 0.0] for number in numbers], np.float32)

    def let_go(self, batches: int = 1) -> None:
        self._gate.release(batches)

    def open(self) -> None:
        """Let everything through from now on."""
        self._open = True
        self._gate.release(1000)

    async def called(self, times: int) -> None:
        """Wait until the engine has been called so many times."""
        while len(self.batches) < times:
            self._called.clear()
            await self._called.wait()
