"""What the host allows this process: cores and memory, within the container's limits.

Limits are read from cgroups, version 2 and version 1: the process's own group, and those that it is
in. `docker run --cpus`, Kubernetes and systemd's CPUQuota set them at different levels.
"""

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

_ROOT = Path("/")
_CGROUPS = "sys/fs/cgroup"


def count_cores(root: Path = _ROOT) -> int:
    """Return the cores that this process may use, 1 or more.

    Args:
        root: The root of the file system that describes the host.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    limits = [limit for group in _groups(root, "cpu") if (limit := _cpu_limit(group)) is not None]
    return max(1, min([allowed, *map(ceil, limits)]))


def find_memory_bytes(root: Path = _ROOT) -> int:
    """Return the memory that this process may use, in bytes.

    Args:
        root: The root of the file system that describes the host.
    """
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    names = "memory.max", "memory.limit_in_bytes"
    files = (group / name for group in _groups(root, "memory") for name in names)
    limits = [numbers[0] for file in files if (numbers := _read_numbers(file))]
    return min([physical, *limits])


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the process's control group and of those above it.

    Inside a container its own group may be mounted as the top one, although its name is longer.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    names = dict(line.split(":", 2)[1:] for line in lines if line.count(":") >= 2)
    version_1 = {part: path for key, path in names.items() for part in key.split(",")}
    for folder, path in (
        (root / _CGROUPS, names.get("", "/")),
        (root / _CGROUPS / controller, version_1.get(controller, "/")),
    ):
        group = folder / path.lstrip("/")
        yield from (g for g in (group, *group.parents) if g.is_relative_to(folder) and g.is_dir())


def _cpu_limit(group: Path) -> float | None:
    """Return a group's limit in cores; None without one."""
    quota = _read_numbers(group / "cpu.max")  # version 2: microseconds, and of how many
    if not quota:
        files = "cpu.cfs_quota_us", "cpu.cfs_period_us"
        quota = [number for name in files for number in _read_numbers(group / name)]
    if len(quota) != 2 or quota[0] < 0 or quota[1] <= 0:
        return None
    return quota[0] / quota[1]


def _read_numbers(file: Path) -> list[int]:
    """Return the numbers in a file; none if it is missing, or says "max"."""
    try:
        return [int(word) for word in file.read_text().split()]
    except (OSError, ValueError):
        return []
