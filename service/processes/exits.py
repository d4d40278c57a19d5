"""How a process of the service says that it cannot start."""

import sys
from typing import NoReturn

EXIT_MISCONFIGURED = 2


def refuse(error: Exception) -> NoReturn:
    """Say in one line what is wrong, and exit with 2."""
    sys.stderr.write(f"attention-fer: {error}\n")
    sys.exit(EXIT_MISCONFIGURED)
