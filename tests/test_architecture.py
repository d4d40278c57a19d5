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


def imported(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
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


@pytest.mark.parametrize("path", MODULES, ids=ids)
def test_files_stay_readable_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


def test_importing_the_service_loads_no_training_code_beyond_the_model() -> None:
    program = (
        "import sys, service.app; "
        "print(*[m for m in sys.modules if m.startswith('training')], sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert loaded
    assert {m for m in loaded if m != "training" and not m.startswith("training.model")} == set()
