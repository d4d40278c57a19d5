"""What several of these tests need: fresh metrics, and a container engine where there is one."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.telemetry.metrics import Metrics
from tests.docker.project import ROOT
from training.model.labels import FER2013_EMOTIONS

READY = "the engine's environment: "
# Hands its environment out, and keeps the engine for as long as its input is open.
HOLD = f"""
import json, os, sys
print({READY!r} + json.dumps(dict(os.environ)), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def metrics() -> Metrics:
    metrics = Metrics(CollectorRegistry())
    metrics.describe_model("attention-fer-test", "0", "cpu", "training", FER2013_EMOTIONS)
    return metrics


@dataclass(frozen=True)
class Engine:
    """A container engine, by the environment in which `docker` finds it."""

    environ: dict[str, str]
    added: dict[str, str] = field(default_factory=dict)

    def having(self, **variables: str) -> "Engine":
        return Engine(self.environ, self.added | variables)

    def start(self, *command: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(part) for part in command],
            cwd=ROOT,
            # The tester's own settings would find their way into the containers.
            env={k: v for k, v in self.environ.items() if not k.startswith("FER_")} | self.added,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *command: str | Path, expected: int = 0) -> str:
        with self.start(*command) as process:
            said, _ = process.communicate()
        assert process.returncode == expected, f"{command}: {process.returncode}\n{said}"
        return said


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine for the session, by the script that WITH_ENGINE names.

    `$WITH_ENGINE COMMAND` has to run COMMAND where `docker`, its buildx and its compose work. On a
    host that has them, WITH_ENGINE=env does.
    """
    script = os.environ.get("WITH_ENGINE")
    if not script:
        pytest.skip("WITH_ENGINE names no script that gives a container engine")
    # An engine of its own may lack the init that `docker run --init` starts.
    shims = tmp_path_factory.mktemp("shims")
    (shims / "docker-init").symlink_to("/usr/bin/tini-static")
    environ = os.environ | {"PATH": f"{os.environ['PATH']}{os.pathsep}{shims}"}
    log = shims / "engine.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [script, sys.executable, "-c", HOLD],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        said = next((line for line in process.stdout if line.startswith(READY)), None)
        assert said is not None, log.read_text()
        yield Engine(json.loads(said.removeprefix(READY)))
        # Leaving the block closes its input, by which it ends.
