"""What /proc says about a server: all of its processes, their CPU time, memory and end.

Works on Linux alone; `benchmarks.serving.server` starts and stops the processes.
"""

import ctypes
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True)
class Stat:
    """The fields of /proc/PID/stat that are used here; `cpu_s` includes children that ended."""

    pid: int
    parent: int
    state: str
    cpu_s: float
    started: int


def read_stat(text: str) -> Stat:
    """Parse /proc/PID/stat, whose second field may hold blanks and parentheses."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    cpu = sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return Stat(int(head.split()[0]), int(fields[1]), fields[0], cpu / TICKS_PER_S, int(fields[19]))


def all_processes() -> dict[int, Stat]:
    found = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                stat = read_stat((entry / "stat").read_text())
            except (OSError, IndexError, ValueError):  # it ended meanwhile
                continue
            found[stat.pid] = stat
    return found


def tree(roots: Iterable[int], processes: dict[int, Stat]) -> list[Stat]:
    """Return the roots that live and all their descendants; zombies have ended."""
    children: dict[int, list[int]] = {}
    for stat in processes.values():
        children.setdefault(stat.parent, []).append(stat.pid)
    found, todo = [], list(roots)
    while todo:
        pid = todo.pop()
        todo += children.get(pid, ())
        if pid in processes and processes[pid].state != "Z":
            found.append(processes[pid])
    return found


def pss_mb(pids: Iterable[int]) -> float:
    """Return the memory of these processes together, what they share counted once, in MB."""
    total_kb = 0
    for pid in pids:
        try:
            total_kb += read_pss_kb((PROC / str(pid) / "smaps_rollup").read_text())
        except OSError:
            continue
    return total_kb / 1024


def read_pss_kb(text: str) -> int:
    lines = (line.split() for line in text.splitlines())
    return next((int(words[1]) for words in lines if words and words[0] == "Pss:"), 0)


def machine_cpu_s() -> tuple[float, float]:
    """Return the seconds that all cores together were busy, and were stolen by the host."""
    fields = [int(f) for f in (PROC / "stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _, _, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq) / TICKS_PER_S, steal / TICKS_PER_S


def adopt_orphans() -> None:
    """Have descendants whose parent ends become this process's children: none gets away."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """In a child before exec: end when the benchmark does, however it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0)
