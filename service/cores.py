"""How many cores this process may keep busy: what scheduler and container leave of the host's.

Not its duty: what they are used for.
"""

import os
from math import ceil
from pathlib import Path

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def count_cores(cpu_max: Path = _CPU_MAX) -> int:
    """Return the cores that this process may use, 1 or more.

    Args:
        cpu_max: Where a container's limit stands (cgroup v2): the microseconds of all cores in so
            many of the clock, as `docker run --cpus` and Kubernetes set it. No file, no limit.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
        limit = ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # none, or "max"
        return allowed
    return max(1, min(allowed, limit))
