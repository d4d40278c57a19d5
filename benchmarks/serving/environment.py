"""The benchmark's own virtual environments, made once and again when their list changes."""

import hashlib
import os
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
CACHE = HERE / ".cache"
PROJECT = (ROOT / "pyproject.toml", ROOT / "constraints.txt")
MAIN = CACHE / "venv"
SEPARATE = {
    peer: (CACHE / f"venv-{peer}", HERE / f"requirements-{peer}.txt") for peer in ("bentoml", "fer")
}
"""Peers whose dependencies contradict the others'."""
_WITHOUT_SERVICE = {"fer"}
"""Those of them that import nothing of this project."""

_installed = False  # whether this interpreter's own packages are used instead


def use_installed(used: bool = True) -> None:
    """Run everything with the packages of this interpreter: for hosts without an index.

    Args:
        used: False: make environments again.
    """
    global _installed
    _installed = used


def python_of(peer: str) -> str:
    if _installed:
        return sys.executable
    folder = SEPARATE[peer][0] if peer in SEPARATE else MAIN
    return str(folder / "bin/python")


def prepare(peers: list[str]) -> dict[str, str]:
    """Make the environments that these peers need.

    Returns:
        By peer, why it cannot be had here.
    """
    problems = {}
    for peer in peers:
        if _installed or peer not in SEPARATE:
            continue
        if problem := make(*SEPARATE[peer], with_service=peer not in _WITHOUT_SERVICE):
            problems[peer] = problem
    return problems


def make(folder: Path, requirements: Path, *, with_service: bool = True) -> str | None:
    """Make one environment, with what the service needs or without; returns what went wrong."""
    wanted = hashlib.sha256(b"".join(f.read_bytes() for f in (requirements, *PROJECT))).hexdigest()
    stamp = folder / "made-from"
    if stamp.is_file() and stamp.read_text() == wanted:
        return None
    print(f"making {folder.relative_to(ROOT)}; the first time, for minutes", flush=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet"]
    commands = [
        [sys.executable, "-m", "venv", str(folder)],
        [*pip, "--no-deps", "-r", str(requirements)],
    ]
    if with_service:  # in its own versions, which are the same or it is a bug
        commands.append([*pip, "-c", str(ROOT / "constraints.txt"), *_needs_of_service()])
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"cannot be installed: {done.stderr.strip()[-400:]}"
    stamp.write_text(wanted)
    return None


def _needs_of_service() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(project["dependencies"])


def enter_main() -> None:
    """Go on in the main environment; returns where this already runs in it."""
    if Path(sys.prefix) == MAIN:
        return
    subprocess.run(["sh", str(ROOT / "service/kernels/compile.sh")], check=True)
    if _installed:
        return
    if problem := make(MAIN, HERE / "requirements.txt"):
        sys.exit(f"the benchmark's environment {problem}")
    python = str(MAIN / "bin/python")
    os.chdir(ROOT)
    os.execv(python, [python, "-m", "benchmarks.serving", *sys.argv[1:]])


def versions(peer: str, packages: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of a peer's packages, and of torch."""
    folder = SEPARATE[peer][0] if peer in SEPARATE else MAIN
    places = [str(place) for place in folder.glob("lib/python*/site-packages")]
    if _installed:
        places = sys.path
    found = {
        d.metadata["Name"].lower().replace("_", "-"): d.version for d in distributions(path=places)
    }
    return {name: found[name] for name in (*packages, "torch") if name in found}
