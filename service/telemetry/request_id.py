"""The name of one request: in its answer, in its problems, in every line of the log about it.

Not its duty: sending or logging it (`service.http.request_context`, `service.telemetry.logs`).
"""

import random
import re
from contextvars import ContextVar

HEADER = "x-request-id"
# What tracing systems make; nothing that could break a line, a field or a header.
_SANE = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def begin(offered: bytes | None) -> str:
    """Name the request that the present task serves, as `choose` does.

    Args:
        offered: What the client wants it to be called, if anything.
    """
    name = choose(offered)
    _current.set(name)
    return name


def choose(offered: bytes | None) -> str:
    """Find a name for a request.

    Args:
        offered: What the client wants it to be called, if anything.

    Returns:
        That, if it is a sane token of at most 64 characters, else a random one.
    """
    sane = offered is not None and _SANE.fullmatch(offered)
    # Nobody gains by guessing it. The system's own chance gives up the interpreter's lock, and
    # would wait for it beside busy threads.
    return offered.decode("ascii") if offered and sane else f"{random.getrandbits(64):016x}"


def current() -> str | None:
    """Return the name of the request that the present task serves, None outside of any."""
    return _current.get()
