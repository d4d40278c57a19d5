"""Counts the cores that this process may use, within CPU affinity and the container's limit."""

import os
from math import ceil
from pathlib import Path

_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def count_cores(cpu_max: Path = _CPU_MAX) -> int:
    """Return the cores that this process may use, 1 or more.

    Args:
        cpu_max: The file of the container's limit (cgroup v2): CPU time in microseconds per period
            in microseconds, as `docker run --cpus` and Kubernetes set it. Without it, no limit.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = cpu_max.read_text().split()
        limit = ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):  # none, or "max"
        return allowed
    return max(1, min(allowed, limit))
