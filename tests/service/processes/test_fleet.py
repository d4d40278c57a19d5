"""Tests of `service.processes.fleet`: who is seen to be well, and for how long."""

import os
import time
from pathlib import Path

import pytest

from service.processes.fleet import STALE_S, Fleet


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def fleet(tmp_path: Path, now: list[float]) -> Fleet:
    return Fleet(tmp_path, 2)


def test_nobody_is_well_at_first(fleet: Fleet) -> None:
    assert not fleet.all_well()
    assert fleet.processes() == {}
    assert fleet.silent_s(0) == 0


def test_all_are_well_when_each_has_said_so_elsewhere(fleet: Fleet, tmp_path: Path) -> None:
    other = Fleet(tmp_path, 2)  # as another process opens it
    fleet.report(0, True)
    assert not other.all_well()
    other.report(1, True)
    assert fleet.all_well()
    assert fleet.processes() == {0: os.getpid(), 1: os.getpid()}


def test_who_is_unwell_or_silent_is_not_well(fleet: Fleet, now: list[float]) -> None:
    fleet.report(0, True)
    fleet.report(1, True)
    now[0] += STALE_S + 0.1
    fleet.report(0, True)
    assert fleet.well(0)
    assert not fleet.well(1)
    assert fleet.silent_s(1) == pytest.approx(STALE_S + 0.1)
    fleet.report(1, False)
    assert not fleet.well(1)
    assert fleet.silent_s(1) == 0


def test_a_worker_that_lives_and_is_not_well_is_in_the_way(fleet: Fleet, now: list[float]) -> None:
    assert not fleet.any_unwell()  # nobody lives yet
    fleet.report(0, True)
    assert (fleet.count_well(), fleet.any_unwell()) == (1, False)  # the other starts
    fleet.report(1, False)
    assert (fleet.count_well(), fleet.any_unwell()) == (1, True)
    fleet.report(1, True)
    assert (fleet.count_well(), fleet.any_unwell()) == (2, False)
    now[0] += STALE_S + 0.1
    fleet.report(0, True)
    assert (fleet.count_well(), fleet.any_unwell()) == (1, True)  # it hangs
    fleet.wipe(1)
    assert (fleet.count_well(), fleet.any_unwell()) == (1, False)  # it is being replaced


def test_a_wiped_worker_is_gone(fleet: Fleet) -> None:
    fleet.report(0, True)
    fleet.report(1, True)
    fleet.wipe(1)
    assert not fleet.all_well()
    assert list(fleet.processes()) == [0]


def test_connections_are_known_to_all_until_their_worker_is_gone(
    fleet: Fleet, tmp_path: Path
) -> None:
    other = Fleet(tmp_path, 2)
    assert other.held(1) == 0
    fleet.report(0, True)
    fleet.hold(0, 3)
    fleet.hold(1, 70_000)
    assert (other.held(0), other.held(1)) == (3, 70_000)
    assert other.well(0), "counting told something else too"
    other.wipe(1)
    assert (fleet.held(0), fleet.held(1)) == (3, 0)


def test_a_rush_is_known_to_all(fleet: Fleet, tmp_path: Path, now: list[float]) -> None:
    other = Fleet(tmp_path, 2)
    assert other.rushed_s() == float("inf")
    fleet.rush()
    now[0] += 0.25
    assert other.rushed_s() == 0.25
    assert other.processes() == {}, "counting told something else too"


def test_the_file_has_its_room_from_the_start(tmp_path: Path) -> None:
    Fleet(tmp_path, 100)
    status = (tmp_path / "fleet").stat()
    assert status.st_size == 3208
    assert status.st_blocks * 512 >= status.st_size
    assert status.st_mode & 0o077 == 0
