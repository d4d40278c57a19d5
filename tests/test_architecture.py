"""The layers of docs/architecture.md: a module imports its own layer and those before it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVICE = sorted(ROOT.glob("service/**/*.py"))
TRAINING = sorted(ROOT.glob("training/**/*.py"))
LEAF = "training.model"
LEAF_LIBRARIES = {"torch", "safetensors", "numpy", "PIL"}

# The lowest first; what stands in one line is one layer.
LAYERS = [
    ["service.errors", "service.config", "service.rules", "service.host", "service.threads"],
    ["service.telemetry"],
    [LEAF],
    ["service.kernels"],
    ["service.pictures"],
    ["service.engine"],
    ["service.queue"],
    ["service.remote"],
    ["service.pipeline"],
    ["service.drawing"],
    ["service.http"],
    ["service.server"],
    ["service.app"],
    ["service.__main__", "service.worker", "service.crop"],
]
# Beside the layers: a program of its own, and data.
ALONE = {"service.client", "service.weights"}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


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


def ours(path: Path) -> set[str]:
    return {name for name in imported(path) if name.split(".")[0] in ("service", "training")}


def within(name: str, package: str) -> bool:
    return f"{name}.".startswith(f"{package}.")


def layer_of(name: str) -> int:
    found = [n for n, layer in enumerate(LAYERS) if any(within(name, one) for one in layer)]
    assert len(found) == 1, f"{name} is in {len(found)} layers"
    return found[0]


@pytest.mark.parametrize("path", SERVICE, ids=name_of)
def test_imports_go_to_lower_layers(path: Path) -> None:
    name = name_of(path)
    used = ours(path) - {"service.__version__"}
    alone = [one for one in ALONE if within(name, one)]
    if name == "service":
        assert used == set()
    elif alone:
        assert {one for one in used if not within(one, alone[0])} == set()
    else:
        assert {one for one in used if layer_of(one) > layer_of(name)} == set()


@pytest.mark.parametrize("path", TRAINING, ids=name_of)
def test_training_imports_no_service_and_its_model_is_a_leaf(path: Path) -> None:
    assert {used for used in ours(path) if used.startswith("service")} == set()
    if within(name_of(path), LEAF):
        assert {used for used in ours(path) if not within(used, LEAF)} == set()
        others = {name.split(".")[0] for name in imported(path)} - {"service", "training"}
        assert others <= LEAF_LIBRARIES | sys.stdlib_module_names


def modules_used(path: Path) -> set[Path]:
    files = set()
    for name in ours(path):
        for part in (name, name.rpartition(".")[0]):
            file = ROOT / f"{part.replace('.', '/')}.py"
            files |= {file} if file.is_file() else set()
    return files


def test_no_module_imports_itself_over_others() -> None:
    using = {path: modules_used(path) for path in (*SERVICE, *TRAINING)}
    free: set[Path] = set()
    while ready := {p for p, used in using.items() if p not in free and used <= free}:
        free |= ready
    assert {name_of(path) for path in using if path not in free} == set()


def loaded_by(module: str) -> set[str]:
    """What a fresh interpreter has loaded when it has imported a module."""
    program = f"import sys, {module}; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_a_worker_before_an_engine_elsewhere_loads_no_torch() -> None:
    assert not loaded_by("service.worker") & {"torch", "safetensors"}
    assert "torch" in loaded_by("service.engine.torch_engine")


def test_importing_the_service_loads_no_training_code_beyond_the_model() -> None:
    loaded = loaded_by("service.app, service.engine.torch_engine")
    loaded = {m for m in loaded if m.split(".")[0] == "training"}
    assert loaded
    assert {m for m in loaded if m != "training" and not within(m, LEAF)} == set()


def graph() -> list[str]:
    """Return a line for each layer: which lower layers its modules import."""
    lines = []
    for number, layer in enumerate(LAYERS):
        names = " ".join(name.removeprefix("service.") for name in layer)
        if layer == [LEAF]:
            lines.append(f"{number:2} {names}")
            continue
        paths = [path for path in SERVICE if name_of(path) != "service"]
        own = [p for p in paths if not any(within(name_of(p), a) for a in ALONE)]
        own = [path for path in own if layer_of(name_of(path)) == number]
        used = {layer_of(one) for p in own for one in ours(p) if one != "service.__version__"}
        below = [LAYERS[lower][0].removeprefix("service.") for lower in sorted(used - {number})]
        lines.append(f"{number:2} {names} ({len(own)} modules) -> {', '.join(below)}")
    return lines


if __name__ == "__main__":
    print("\n".join(graph()))  # noqa: T201
