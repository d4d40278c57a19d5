"""The compose files: what they hold back, and that every combination of them is valid."""

import dataclasses
import json
import re
from typing import Any

import pytest

from service.config import Settings, key_of
from tests.docker.conftest import Engine
from tests.docker.project import ROOT, read_yaml

COMPOSE = read_yaml(ROOT / "docker-compose.yml")["services"]
# Given by the container itself: where in it the service listens.
OWN = {"FER_HOST", "FER_PORT"}
COMBINATIONS = (
    ("docker-compose.yml",),
    ("docker-compose.yml", "docker-compose.cpu.yml"),
    ("docker-compose.yml", "docker-compose.cpu.yml", "tests/docker/compose.engine.yml"),
)

every_service = pytest.mark.parametrize("name", COMPOSE)


@every_service
def test_nothing_runs_with_rights_it_does_not_need(name: str) -> None:
    service = COMPOSE[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"] <= 2048
    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["start_interval"] == "1s"
    written = [v for v in service["volumes"] if not v.endswith(":ro")]
    assert all(re.fullmatch(rf"{name}-data:/\S+", volume) for volume in written)


@every_service
def test_only_the_service_is_seen_from_elsewhere(name: str) -> None:
    local = [port.startswith("127.0.0.1:") for port in COMPOSE[name]["ports"]]
    assert local == [name != "service"]


@every_service
def test_versions_are_pinned(name: str) -> None:
    if "build" not in COMPOSE[name]:
        assert re.search(r":v?\d+\.\d+\.\d+$", COMPOSE[name]["image"])


def test_every_setting_reaches_the_service() -> None:
    """One that compose does not pass on would be set in vain."""
    keys = {key_of(f.name) for f in dataclasses.fields(Settings)}
    passed = COMPOSE["service"]["environment"]
    assert set(passed) == keys - OWN
    assert {key for key, value in passed.items() if value is not None} == {
        "FER_DETECTOR",
        "FER_DEVICE",
    }


def test_the_engine_waits_longer_than_the_drain() -> None:
    grace = re.search(r":-(\d+)s", COMPOSE["service"]["stop_grace_period"])
    assert grace is not None
    assert int(grace[1]) >= Settings().drain_s + 5


def test_operations_names_every_variable() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    documented = (ROOT / "docs/operations.md").read_text()
    variables = set(re.findall(r"\$\{(\w+)", text))
    assert {v for v in variables if f"`{v}`" not in documented} == set()


def config(engine: Engine, *files: str) -> dict[str, Any]:
    options = [part for name in files for part in ("-f", ROOT / name)]
    said = engine.having(WHEELS="/wheels", CHECKPOINTS="/mine", FER_MAX_BATCH="7").run(
        "docker", "compose", *options, "--project-directory", ROOT, "config", "--format", "json"
    )
    services: dict[str, Any] = json.loads(said)["services"]
    return services


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("files", COMBINATIONS, ids=lambda files: str(len(files)))
def test_combinations_are_valid(engine: Engine, files: tuple[str, ...]) -> None:
    service = config(engine, *files)["service"]
    gpu = len(files) == 1
    assert ("deploy" in service and bool(service["deploy"])) is gpu
    assert service["build"]["args"]["TORCH"] == ("cuda" if gpu else "cpu")
    environment = service["environment"]
    assert environment["FER_DEVICE"] == ("cuda" if gpu else "cpu")
    assert environment["FER_MAX_BATCH"] == "7"
    assert environment.get("FER_CHECKPOINT") is None
    assert service["image"] == ("attention-fer:cuda", "attention-fer:cpu", "attention-fer:test")[
        len(files) - 1
    ]  # fmt: skip
