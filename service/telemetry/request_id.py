"""The id of a request, for its answer, its errors and its log lines."""

import random
import re
from contextvars import ContextVar

HEADER = "x-request-id"
# Ids of tracing systems have this form; it cannot break a line, a field or a header.
_VALID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def begin(offered: bytes | None) -> str:
    """Set the id of the request that the current task serves, as `choose` returns it.

    Args:
        offered: The id that the client sent, if any.
    """
    name = choose(offered)
    _current.set(name)
    return name


def choose(offered: bytes | None) -> str:
    """Choose the id of a request.

    Args:
        offered: The id that the client sent, if any.

    Returns:
        That id if it is a valid token of at most 64 characters, else a random one.
    """
    valid = offered is not None and _VALID.fullmatch(offered)
    # The id is no secret. os.urandom would release the GIL, and wait for it beside busy threads.
    return offered.decode("ascii") if offered and valid else f"{random.getrandbits(64):016x}"


def current() -> str | None:
    """Return the id of the request that the current task serves; None outside a request."""
    return _current.get()
