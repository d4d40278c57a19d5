"""Tests of `service.host`: limits of containers, as the kernel's files state them."""

import os
from pathlib import Path

import pytest

from service.host import count_cores, find_memory_bytes


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("6400000 100000", 8),
        ("0 100000", 1),
        ("", 8),
        ("100 0", 8),
    ],
)
def test_a_containers_limit_counts(tmp_path: Path, limit: str, cores: int) -> None:
    assert count_cores(write(tmp_path, {"sys/fs/cgroup/cpu.max": limit})) == cores


def test_the_limit_of_a_group_above_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/system.slice/fer.service/worker",
        "sys/fs/cgroup/system.slice/fer.service/worker/cpu.max": "max 100000",
        "sys/fs/cgroup/system.slice/fer.service/cpu.max": "300000 100000",
        "sys/fs/cgroup/system.slice/cpu.max": "500000 100000",
        "sys/fs/cgroup/other.slice/cpu.max": "100000 100000",
    }
    assert count_cores(write(tmp_path, files)) == 3


@pytest.mark.parametrize(("quota", "cores"), [("250000", 3), ("-1", 8)])
def test_the_first_version_of_control_groups_counts(tmp_path: Path, quota: str, cores: int) -> None:
    files = {
        "proc/self/cgroup": "4:memory:/docker/12ab\n3:cpu,cpuacct:/docker/12ab\n1:name=systemd:/x",
        # A container sees its own group as the top one.
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": quota,
        "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
    }
    assert count_cores(write(tmp_path, files)) == cores


def test_without_a_limit_all_count_that_the_scheduler_leaves(tmp_path: Path) -> None:
    assert count_cores(tmp_path) == 8


def test_where_the_scheduler_does_not_say_it_is_the_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert count_cores(tmp_path) == 5


@pytest.mark.parametrize(
    "file", ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"]
)
def test_memory_is_the_hosts_or_the_containers(tmp_path: Path, file: str) -> None:
    whole = find_memory_bytes(tmp_path)
    assert whole > 256 << 20
    assert find_memory_bytes(write(tmp_path, {file: "max"})) == whole
    assert find_memory_bytes(write(tmp_path, {file: str(1 << 62)})) == whole
    assert find_memory_bytes(write(tmp_path, {file: "104857600"})) == 100 << 20
