"""The arrows of docs/architecture.md, kept one-way."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((*ROOT.glob("service/**/*.py"), *ROOT.glob("training/**/*.py")))
LEAF_LIBRARIES = {"torch", "safetensors"}
PACKAGES = {"service", "training"}

# What of ours the modules of each folder may import, besides their own folder. Of the processes,
# `workers` alone is known below them: a leaf, which says who lives.
ARROWS: dict[str, set[str]] = {
    # The detector computes with the engine's C kernels.
    "service/pictures": {
        "service.errors",
        "service.engine.cpu.kernels",
        "service.threads",
        "training.model",
    },
    "service/queue": {
        "service.errors",
        "service.telemetry.metrics",
        "service.threads",
        "training.model",
    },
    "service/engine/cpu/kernels": {"training.model"},
    "service/drawing": {"service.engine.explanation", "service.pictures"},
    "service/telemetry": {"service.errors", "service.server.registry"},
    "service/client": set(),
    "service/weights": set(),
    "service/http": {
        "service.config",
        "service.errors",
        "service.drawing.explainer",
        "service.queue",
        "service.telemetry",
        "service.pictures",
        "service.pipeline",
        "service.server.registry",
    },
    "service/http/v2": {
        "service.errors",
        "service.http",
        "service.pictures",
        "service.pipeline",
        "training.model",
    },
    "service/server": {
        "service.app",
        "service.config",
        "service.engines",
        "service.errors",
        "service.http.disconnect",
        "service.http.door",
        "service.http.request_context",
        "service.http.express",
        "service.http.problems",
        "service.queue",
        "service.telemetry",
        "training.model",
    },
}
# The same of single modules that others need, or that join some.
SINGLE: dict[str, set[str]] = {
    "service/errors.py": set(),
    "service/rules.py": set(),
    "service/threads.py": set(),
    "service/cores.py": set(),
    # Where the detector lies is known to what fetches it, which imports the standard library alone.
    "service/config.py": {"service.cores", "service.pictures.model_file", "service.rules"},
    "service/server/registry.py": set(),
    "service/drawing/explainer.py": {
        "service.drawing",
        "service.telemetry.metrics",
        "service.pictures",
        "service.pipeline",
        "training.model",
    },
    "service/answers.py": {
        "service.queue",
        "service.telemetry.metrics",
        "service.pictures",
        "training.model",
    },
    "service/pipeline.py": {
        "service.answers",
        "service.errors",
        "service.http.problems",
        "service.queue",
        "service.telemetry.metrics",
        "service.pictures",
        "training.model",
    },
}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it, and what of it by its full name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_imports_follow_the_arrows(path: Path) -> None:
    ours = {name for name in imported(path) if name.split(".")[0] in PACKAGES}
    if path.is_relative_to(ROOT / "training/model"):
        assert {name for name in ours if not name.startswith("training.model")} == set()
        others = {name.split(".")[0] for name in imported(path)} - PACKAGES
        assert others <= LEAF_LIBRARIES | sys.stdlib_module_names
    elif path.is_relative_to(ROOT / "training"):
        assert {name for name in ours if name.startswith("service")} == set()
    else:
        training = {name for name in ours if name.startswith("training")}
        assert {name for name in training if not name.startswith("training.model")} == set()


def within(name: str, packages: set[str]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def test_every_folder_of_the_service_has_its_arrows() -> None:
    folders = {ids(path.parent) for path in ROOT.glob("service/*/**/*.py")}
    assert folders == set(ARROWS)


@pytest.mark.parametrize("folder", ARROWS)
def test_folders_of_the_service_import_what_their_arrows_say(folder: str) -> None:
    allowed = ARROWS[folder] | {folder.replace("/", ".")}
    for path in ROOT.glob(f"{folder}/*.py"):
        ours = {name for name in imported(path) if within(name, PACKAGES)}
        assert {name for name in ours if not within(name, allowed)} == set(), ids(path)


@pytest.mark.parametrize("module", SINGLE)
def test_single_modules_import_what_their_arrows_say(module: str) -> None:
    ours = {name for name in imported(ROOT / module) if within(name, PACKAGES)}
    assert {name for name in ours if not within(name, SINGLE[module])} == set()


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_files_stay_readable_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


def loaded_by(module: str) -> set[str]:
    """What a fresh interpreter has loaded when it has imported a module."""
    program = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_a_worker_before_an_engine_elsewhere_loads_no_torch() -> None:
    assert not loaded_by("service.server.worker") & {"torch", "safetensors"}
    assert "torch" in loaded_by("service.engine.torch_engine")


def test_importing_the_service_loads_no_training_code_beyond_the_model() -> None:
    loaded = {m for m in loaded_by("service.app, service.engine.torch_engine") if "training" in m}
    loaded = {m for m in loaded if m.split(".")[0] == "training"}
    assert loaded
    assert {m for m in loaded if m != "training" and not m.startswith("training.model")} == set()
