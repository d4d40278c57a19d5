"""Tests of `service.server.topology`: how many workers there are, and which engines are apart."""

from pathlib import Path

import pytest

from service.config import Settings
from service.server.topology import engine_devices, fit_to_host, worker_bytes


@pytest.mark.parametrize(
    ("settings", "devices"),
    [
        (Settings(engine="in-process", workers=4, device="cuda"), ()),
        (Settings(engine="shared", workers=1, device="cpu"), ("cpu",)),
        (Settings(engine="shared", device="cuda:0,cuda:1"), ("cuda:0", "cuda:1")),
        (Settings(engine="auto", workers=4, device="cuda"), ("cuda",)),
        (Settings(engine="auto", workers=1, device="cuda"), ()),
        (Settings(engine="auto", workers=4, device="cpu"), ()),
        (Settings(engine="auto", workers=1, device="cuda:0,cuda:1"), ("cuda:0", "cuda:1")),
    ],
)
def test_which_engines_are_apart(settings: Settings, devices: tuple[str, ...]) -> None:
    assert engine_devices(settings) == devices


@pytest.mark.parametrize(("there", "devices"), [(True, ("auto",)), (False, ())])
def test_a_device_to_be_found_is_a_gpu_where_the_driver_shows_one(
    there: bool, devices: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path if there else tmp_path / "none"
    assert engine_devices(Settings(workers=2), [file]) == devices


GIB = 1 << 30


@pytest.mark.parametrize(
    ("device", "cores", "memory", "workers", "threads"),
    [
        ("cpu", 1, 64 * GIB, 1, 2),
        ("cpu", 2, 64 * GIB, 2, 2),
        ("cpu", 16, 64 * GIB, 16, 2),
        ("cpu", 16, 4 * GIB, 3, 5),
        ("cpu", 16, GIB // 2, 1, 16),
        ("cuda", 16, 64 * GIB, 16, 2),
        ("cuda", 16, 8 * GIB, 6, 2),
    ],
)
def test_there_are_as_many_workers_as_cores_and_memory_allow(
    device: str, cores: int, memory: int, workers: int, threads: int
) -> None:
    fitted = fit_to_host(Settings(device=device), cores, memory)
    assert (fitted.workers, fitted.decode_threads) == (workers, threads)


def test_what_was_set_stays() -> None:
    set_by_hand = Settings(device="cpu", workers=3, decode_threads=7)
    assert fit_to_host(set_by_hand, 2, GIB) == set_by_hand
    assert fit_to_host(Settings(workers=4), 8, GIB).decode_threads == 2
    assert fit_to_host(Settings(decode_threads=4), 8, 64 * GIB).workers == 8


def test_a_worker_that_may_hold_less_leaves_room_for_others() -> None:
    small = Settings(device="cpu", max_buffered_bytes=64 << 20, max_decode_bytes=64 << 20)
    assert worker_bytes(small) < worker_bytes(Settings(device="cpu"))
    assert fit_to_host(small, 16, 4 * GIB).workers == 7  # of 560 MiB each
