"""Waiting for what another process will show, where nothing tells when it does."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T | None], within_s: float) -> T:
    """Look until something is seen, and return it.

    Raises:
        TimeoutError: Nothing was seen in time.
    """
    end = time.monotonic() + within_s
    while (seen := look()) is None:
        if time.monotonic() > end:
            raise TimeoutError(f"nothing was seen in {within_s} s")
        time.sleep(0.1)  # the one wait in the tests that no event can end
    return seen
