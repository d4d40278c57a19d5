"""How a process of the service ends: well at a signal, or saying that it cannot start."""

import signal
import sys
from types import FrameType
from typing import NoReturn

EXIT_MISCONFIGURED = 2


def refuse(error: Exception) -> NoReturn:
    """Say in one line what is wrong, and exit with 2."""
    sys.stderr.write(f"attention-fer: {error}\n")
    sys.exit(EXIT_MISCONFIGURED)


def exit_well_on_signals() -> None:
    """Have SIGTERM and SIGINT end this process with 0, also while it starts."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # Uvicorn drains at the signal, then raises it again for whoever handled it before.
        signal.signal(number, _exit_well)


def _exit_well(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(0)
