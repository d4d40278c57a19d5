"""What connections may do, and how many the system lets a process have.

Not its duty: holding them to it (`service.server.connections`).
"""

import logging
import resource
from dataclasses import dataclass

# What the process opens besides connections: libraries, metrics, the event loop's own.
_OTHER_DESCRIPTORS = 128

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConnectionLimits:
    """What connections may do.

    Attributes:
        max_connections: How many at once.
        header_timeout_s: From a connection's or a head's first byte to the head's last one; also
            how long a client may stop reading its answer.
    """

    max_connections: int
    header_timeout_s: float


def allow_descriptors(max_connections: int) -> int:
    """Have the system let this process open as many connections as that, if it does.

    Args:
        max_connections: How many are wanted.

    Returns:
        How many there can be.
    """
    needed = max_connections + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= needed:
        if soft != resource.RLIM_INFINITY and soft < needed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        return max_connections
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    possible = max(1, hard - _OTHER_DESCRIPTORS)
    _log.warning("the system allows %d descriptors: at most %d connections", hard, possible)
    return possible
