"""The examples of docs/api.md, run against the real server; what they print has the shape shown.

Numbers and long strings differ from one machine and checkpoint to the next: their kind is compared.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.config import detector_path
from tests.service.server_processes import Server, running

ROOT = Path(__file__).parent.parent
DOCUMENT = (ROOT / "docs/api.md").read_text()
COMMANDS = {
    "python": [sys.executable, "-W", "error"],
    "sh": ["bash", "-eu"],
    "javascript": ["node"],
}
SUFFIXES = {"python": ".py", "sh": ".sh", "javascript": ".mjs"}
OUTPUTS = {"json", "text"}
# Of strings: what a picture holds, a request's name, a checkpoint's name and version.
VARYING = r"(?<=base64,).*|(?<=request:).*|(?<=attention-fer-).*|\d{4}-\d\d-\d\d\.\w+"


@dataclass(frozen=True)
class Example:
    """A block of the document, and the block after it that says what it prints."""

    section: str
    language: str
    text: str
    kind: str = ""
    output: str = ""


def examples() -> list[Example]:
    found: list[Example] = []
    section, last = "", None
    for match in re.finditer(
        r"^## ([^\n]*)$|^```(\w+)\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL
    ):
        title, language, text = match.groups()
        if title:
            section, last = title, None
        elif language in OUTPUTS:
            assert last is not None, f"an output of nothing:\n{text}"
            found[-1] = Example(last.section, last.language, last.text, language, text)
            last = None
        else:
            last = Example(section, language, text)
            found.append(last)
    return found


EXAMPLES = examples()
PICTURES, *REQUESTS = EXAMPLES


def ids(example: Example) -> str:
    return f"{example.section}-{example.language}-{REQUESTS.index(example)}"


def run(example: Example, folder: Path, url: str = "") -> str:
    """Run an example as a reader would, from a file of its own."""
    if example.language == "javascript" and shutil.which("node") is None:
        pytest.skip("node is not installed")
    if "tritonclient" in example.text and importlib.util.find_spec("tritonclient") is None:
        pytest.skip("tritonclient[http] is not installed")
    if "photograph.jpg" in example.text and url and not detector_path().exists():
        pytest.skip("the face detector is not in the cache: python -m service.pictures.model_file")
    text = example.text.replace("http://localhost:8000", url)
    text = text.replace("localhost:8000", url.removeprefix("http://"))
    file = folder / f"example{SUFFIXES[example.language]}"
    file.write_text(text)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [*COMMANDS[example.language], str(file)],
        cwd=folder, env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running({}) as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    run(PICTURES, folder)
    return folder


def shape(value: Any) -> Any:
    """Keep names and kinds of a JSON value, and what is no measurement."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    if isinstance(value, float | int) and not isinstance(value, bool):
        return 0
    if isinstance(value, str):
        return re.sub(VARYING, "…", value)
    return value


def same_text(shown: str, printed: str) -> bool:
    kept = [re.sub(r"\d+(\.\d+)?", "0", re.sub(r" +", " ", text)) for text in (shown, printed)]
    return kept[0].replace("[ ", "[").strip() == kept[1].replace("[ ", "[").strip()


@pytest.mark.parametrize("example", REQUESTS, ids=ids)
def test_an_example_does_what_it_shows(example: Example, server: Server, folder: Path) -> None:
    printed = run(example, folder, server.url)
    if example.kind == "json":
        assert shape(json.loads(printed)) == shape(json.loads(example.output))
    elif example.kind == "text":
        assert same_text(example.output, printed), printed


def test_every_path_has_an_example_in_every_language() -> None:
    assert {example.language for example in EXAMPLES} == set(COMMANDS)
    for wanted in ("httpx", "service.client", "tritonclient", "fetch(", "curl", "fer "):
        assert any(wanted in example.text for example in REQUESTS), wanted
    for path in ("/predict", "/predict/batch", "/explain", "/infer", "/health/ready"):
        assert any(path in example.text for example in REQUESTS), path


def test_readme_shows_the_same_answer() -> None:
    readme = (ROOT / "README.md").read_text()
    shown = readme.partition("/predict\n\n")[2].partition("\n\n")[0]
    (example,) = (
        example for example in REQUESTS
        if example.section == "One picture" and example.kind == "json"
    )  # fmt: skip
    assert json.loads(shown) == json.loads(example.output)
