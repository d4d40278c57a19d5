"""How many cores there are for this process."""

import os
from pathlib import Path

import pytest

from service.cores import count_cores


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


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
    (tmp_path / "cpu.max").write_text(f"{limit}\n")
    assert count_cores(tmp_path / "cpu.max") == cores


def test_without_a_container_all_count_that_the_scheduler_leaves(tmp_path: Path) -> None:
    assert count_cores(tmp_path / "cpu.max") == 8


def test_where_the_scheduler_does_not_say_it_is_the_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert count_cores(tmp_path / "cpu.max") == 5
