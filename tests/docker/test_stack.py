"""The service and Prometheus as an operator runs them, on a real engine: built, up, asked, stopped.

The tests are one story and run in order. Grafana takes no part: its files are checked elsewhere.
"""

import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from PIL import Image
from skimage import data

from service.config import SHIPPED_CHECKPOINT
from tests.docker.conftest import Engine
from tests.docker.load import Fate, Load, Request
from tests.docker.project import ROOT, panel_queries, rules
from tests.service.server_processes import only_line
from tests.waiting import eventually
from training.model.checkpoint import load_checkpoint, save_checkpoint
from training.model.labels import FER2013_EMOTIONS
from training.model.manifest import Manifest, NetworkConfig
from training.model.network import AttentionFER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

FILES = ("docker-compose.yml", "docker-compose.cpu.yml", "tests/docker/compose.engine.yml")
IMAGE = "attention-fer:test"
MOST_BYTES = 950_000_000  # of the image, uncompressed; 885 MB when this was written
CLIENTS, HELD = 16, 8

# What a process in the container sees of its own rights and of the image.
LOOK = """
import importlib.util, json, os, pathlib, shutil
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
def writable(path):
    try:
        pathlib.Path(path, "probe").touch()
    except OSError:
        return False
    return True
print(json.dumps({
    "uid": os.getuid(),
    "capabilities": int(status["CapBnd"], 16),
    "no_new_privileges": int(status["NoNewPrivs"]),
    "writable": [p for p in ("/", "/app", "/opt/venv", "/checkpoints", "/tmp") if writable(p)],
    "tools": [t for t in ("gcc", "cc", "git") if shutil.which(t)],
    "modules": [m for m in ("httpx", "pytest", "pip", "sympy") if importlib.util.find_spec(m)],
    "training": sorted(p.name for p in pathlib.Path("/app/training").iterdir()),
    "app": sorted(p.name for p in pathlib.Path("/app").iterdir()),
    "compiled": sorted(p.name for p in pathlib.Path("/app/service").rglob("*.so")),
}))
"""


@dataclass
class Stack:
    """The two services, on ports that the engine chose."""

    engine: Engine

    def compose(self, *arguments: str) -> list[str]:
        files = [part for name in FILES for part in ("-f", str(ROOT / name))]
        here = ["--project-directory", str(ROOT), "--project-name", f"fer-test-{os.getpid()}"]
        return ["docker", "compose", *files, *here, *arguments]

    def run(self, *arguments: str) -> str:
        return self.engine.run(*self.compose(*arguments))

    def port(self, service: str, inside: int) -> int:
        return int(self.run("port", service, str(inside)).strip().rpartition(":")[2])

    def ask(self, path: str, **parameters: str) -> Any:
        """Return what Prometheus' API answers."""
        url = f"http://127.0.0.1:{self.port('prometheus', 9090)}/api/v1/{path}"
        body = httpx.get(url, params=parameters, timeout=30).json()
        assert body["status"] == "success", body
        return body["data"]

    def value(self, query: str) -> float | None:
        result = self.ask("query", query=query)["result"]
        return float(result[0]["value"][1]) if result else None


@pytest.fixture(scope="module")
def face() -> bytes:
    """Return the public-domain portrait, head and shoulders, as a PNG."""
    file = BytesIO()
    Image.fromarray(data.astronaut()[40:220, 140:310]).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a checkpoint that is not the shipped one."""
    folder = tmp_path_factory.mktemp("checkpoints")
    config = NetworkConfig(widths=(8, 16), depths=(1, 1))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AttentionFER(config)
    manifest = Manifest("mounted", "42", config, FER2013_EMOTIONS)
    save_checkpoint(folder / "mounted.safetensors", network, manifest, torch.float32)
    folder.chmod(0o755)  # the container's user is another one
    return folder


def wheels(empty: Path) -> Path:
    """Return the folder that pip is told to find torch in on this host, or one without any."""
    places = [Path(place) for place in shlex.split(os.environ.get("PIP_FIND_LINKS", ""))]
    return next((place for place in places if any(place.glob("torch-*.whl"))), empty)


@pytest.fixture(scope="module")
def stack(
    engine: Engine, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Build the CPU image and start it and Prometheus; take both down, with what they stored."""
    places = {
        "CHECKPOINTS": str(checkpoints),
        "WHEELS": str(wheels(tmp_path_factory.mktemp("wheels"))),
    }
    stack = Stack(engine.having(**places))
    try:
        stack.run("build", "service")
        stack.run("up", "--detach", "--wait", "--wait-timeout", "120", "service", "prometheus")
        yield stack
    finally:
        print(stack.run("logs", "--no-color", "--tail", "50"))  # noqa: T201 - shown with a failure
        stack.run("down", "--volumes", "--timeout", "10")


def predict(stack: Stack, face: bytes) -> dict[str, Any]:
    url = f"http://127.0.0.1:{stack.port('service', 8000)}/predict"
    response = httpx.post(url, files={"image": ("face.png", face, "image/png")}, timeout=30)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_the_container_can_do_little(stack: Stack) -> None:
    seen = json.loads(stack.run("exec", "-T", "service", "python", "-c", LOOK))
    assert seen == {
        "uid": 10001,
        "capabilities": 0,
        "no_new_privileges": 1,
        "writable": ["/tmp"],
        "tools": [],
        "modules": [],
        "training": ["__init__.py", "__pycache__", "model"],
        "app": ["detector", "healthcheck.py", "service", "training"],
        "compiled": ["libkernels-avx2.so", "libkernels-avx512.so"],
    }


def test_the_image_is_not_larger_than_it_was(stack: Stack) -> None:
    size = int(stack.engine.run("docker", "image", "inspect", "--format", "{{.Size}}", IMAGE))
    assert size < MOST_BYTES


def test_a_gpu_that_is_not_there_is_said_in_one_line(stack: Stack) -> None:
    said = stack.engine.run("docker", "run", "--rm", "-e", "FER_DEVICE=cuda", IMAGE, expected=2)
    assert "no CUDA device was found" in only_line(said)


def test_the_shipped_checkpoint_recognises_a_face(stack: Stack, face: bytes) -> None:
    shipped = load_checkpoint(SHIPPED_CHECKPOINT).manifest
    answer = predict(stack, face)
    assert answer["model"] == {
        "name": shipped.name,
        "version": shipped.version,
        "prior": "balanced",
    }
    (found,) = answer["faces"]
    assert found["emotion"] in shipped.emotions
    assert found["detection"] > 0.7  # the image carries the detector, and Compose lets it be found


def test_prometheus_sees_the_request(stack: Stack) -> None:
    requests = 'fer_requests_total{route="/predict", status="200"}'
    eventually(lambda: stack.value(requests) is not None, 30)
    assert stack.value(requests) == 1
    target = next(
        t
        for t in stack.ask("targets", state="active")["activeTargets"]
        if t["labels"]["job"] == "attention-fer"
    )
    assert (target["health"], target["lastError"]) == ("up", "")
    assert stack.value('up{job="attention-fer"}') == 1
    assert stack.value("fer_ready") == 1
    assert stack.value("sum(fer_faces_total)") == 1


def test_rules_are_loaded_and_every_panel_can_be_drawn(stack: Stack) -> None:
    recorded = 'job:fer_predict_requests:rate5m{job="attention-fer"}'
    eventually(lambda: stack.value(recorded) is not None, 60)
    groups = stack.ask("rules")["groups"]
    loaded = [rule for group in groups for rule in group["rules"]]
    assert len(loaded) == len(rules())
    assert {rule["health"] for rule in loaded} <= {"ok", "unknown"}  # unknown: not yet its time
    assert not [rule for rule in loaded if rule.get("lastError")]
    for _, expression, _ in panel_queries():
        stack.ask("query", query=expression)  # fails where Prometheus does


def test_a_mounted_checkpoint_is_served_instead(stack: Stack, face: bytes) -> None:
    mounted = Stack(stack.engine.having(FER_CHECKPOINT="/checkpoints/mounted.safetensors"))
    mounted.run("up", "--detach", "--wait", "--wait-timeout", "120", "--no-build", "service")
    assert predict(mounted, face)["model"] == {
        "name": "mounted",
        "version": "42",
        "prior": "training",  # its header states none
    }


def test_sigterm_under_load_loses_nothing(stack: Stack, face: bytes) -> None:
    port = stack.port("service", 8000)
    load = Load(port, face, CLIENTS)
    held = [Request(port, face) for _ in range(HELD)]
    assert all(request.open() for request in held)
    load.start()
    eventually(lambda: load.answered >= 100, 60)
    with stack.engine.start(*stack.compose("stop", "service")) as stopping:
        eventually(lambda: not _takes_traffic(port), 20)
        # Accepted before the signal, and uploaded only now.
        assert [request.finish() for request in held] == [Fate.ANSWERED] * HELD
        fates = load.join()
        said, _ = stopping.communicate()
    print(f"SIGTERM under load: {HELD} held back and answered, then {fates}")  # noqa: T201
    assert stopping.returncode == 0, said
    assert fates[Fate.LOST] == 0, fates
    assert fates[Fate.NOT_ACCEPTED] == CLIENTS
    assert _exit_code(stack) == 0


def _takes_traffic(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health/ready", timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def _exit_code(stack: Stack) -> int:
    container = stack.run("ps", "--all", "--quiet", "service").strip()
    return int(stack.engine.run("docker", "inspect", "--format", "{{.State.ExitCode}}", container))
