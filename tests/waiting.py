"""Waits for what has no event to wait for: in another process, or in tasks of this event loop."""

import asyncio
import time
from collections.abc import Callable

PATIENCE_S = 90.0


def eventually(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> float:
    """Wait for another process, by asking again and again; returns the seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, "it never happened"
        time.sleep(0.02)
    return time.monotonic() - began


async def until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Let the event loop turn until a condition of this process holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0)
