"""Tests of `service.server.registry`: who is seen to be well, and for how long."""

import os
import time
from pathlib import Path

import pytest

from service.server.registry import STALE_S, WorkerRegistry


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def workers(tmp_path: Path, now: list[float]) -> WorkerRegistry:
    return WorkerRegistry(tmp_path, 2)


def test_nobody_is_well_at_first(workers: WorkerRegistry) -> None:
    assert not workers.all_healthy()
    assert workers.processes() == {}
    assert workers.seconds_since_report(0) == 0


def test_all_are_well_when_each_has_said_so_elsewhere(
    workers: WorkerRegistry, tmp_path: Path
) -> None:
    other = WorkerRegistry(tmp_path, 2)  # as another process opens it
    workers.report(0, True)
    assert not other.all_healthy()
    other.report(1, True)
    assert workers.all_healthy()
    assert workers.processes() == {0: os.getpid(), 1: os.getpid()}


def test_who_is_unwell_or_silent_is_not_well(workers: WorkerRegistry, now: list[float]) -> None:
    workers.report(0, True)
    workers.report(1, True)
    now[0] += STALE_S + 0.1
    workers.report(0, True)
    assert workers.is_healthy(0)
    assert not workers.is_healthy(1)
    assert workers.seconds_since_report(1) == pytest.approx(STALE_S + 0.1)
    workers.report(1, False)
    assert not workers.is_healthy(1)
    assert workers.seconds_since_report(1) == 0


def test_a_worker_that_lives_and_is_not_well_is_in_the_way(
    workers: WorkerRegistry, now: list[float]
) -> None:
    assert not workers.any_unhealthy()  # nobody lives yet
    workers.report(0, True)
    assert (workers.count_healthy(), workers.any_unhealthy()) == (1, False)  # the other starts
    workers.report(1, False)
    assert (workers.count_healthy(), workers.any_unhealthy()) == (1, True)
    workers.report(1, True)
    assert (workers.count_healthy(), workers.any_unhealthy()) == (2, False)
    now[0] += STALE_S + 0.1
    workers.report(0, True)
    assert (workers.count_healthy(), workers.any_unhealthy()) == (1, True)  # it hangs
    workers.clear(1)
    assert (workers.count_healthy(), workers.any_unhealthy()) == (1, False)  # it is being replaced


def test_a_wiped_worker_is_gone(workers: WorkerRegistry) -> None:
    workers.report(0, True)
    workers.report(1, True)
    workers.clear(1)
    assert not workers.all_healthy()
    assert list(workers.processes()) == [0]


def test_connections_are_known_to_all_until_their_worker_is_gone(
    workers: WorkerRegistry, tmp_path: Path
) -> None:
    other = WorkerRegistry(tmp_path, 2)
    assert other.get_connections(1) == 0
    workers.report(0, True)
    workers.set_connections(0, 3)
    workers.set_connections(1, 70_000)
    assert (other.get_connections(0), other.get_connections(1)) == (3, 70_000)
    assert other.is_healthy(0), "counting told something else too"
    other.clear(1)
    assert (workers.get_connections(0), workers.get_connections(1)) == (3, 0)


def test_a_rush_is_known_to_all(workers: WorkerRegistry, tmp_path: Path, now: list[float]) -> None:
    other = WorkerRegistry(tmp_path, 2)
    assert other.seconds_since_overload() == float("inf")
    workers.signal_overload()
    now[0] += 0.25
    assert other.seconds_since_overload() == 0.25
    assert other.processes() == {}, "counting told something else too"


def test_the_file_has_its_room_from_the_start(tmp_path: Path) -> None:
    WorkerRegistry(tmp_path, 100)
    status = (tmp_path / "workers").stat()
    assert status.st_size == 3208
    assert status.st_blocks * 512 >= status.st_size
    assert status.st_mode & 0o077 == 0
