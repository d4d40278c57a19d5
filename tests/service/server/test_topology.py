"""Tests of `service.server.topology`: which settings set engines apart."""

from pathlib import Path

import pytest

from service.config import Settings
from service.server.topology import engine_devices


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
