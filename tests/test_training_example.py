"""The commands of docs/training.md, from photographs to a served checkpoint, run as they stand."""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from service import __main__ as service
from service.config import detector_path
from tests.service.collages import portrait
from tests.service.server_processes import running
from training.__main__ import main as train

ROOT = Path(__file__).parent.parent
TRAINED, MEASURED = "## On your own photographs", "### Is the shipped checkpoint good enough?"
SHORT = ("--set", "epochs=2", "--set", "clean_epochs=1", "--set", "batch_size=8")
DEVICE = ("--device", "cpu", "--threads", "1")


def commands(title: str) -> list[list[str]]:
    """Return the words of each command of a section, without the set-up of this checkout."""
    text = (ROOT / "docs/training.md").read_text()
    section = text[text.index(title) + len(title) :].partition("\n### ")[0]
    lines = re.findall(r"^    (?!photographs/)(.*)$", section, re.MULTILINE)
    return [shlex.split(line) for line in lines if line != "make setup"]


def take_photographs(folder: Path, bright: str, dark: str) -> None:
    """Make pictures of two classes."""
    for name, brightness in ((bright, 1.0), (dark, 0.5)):
        (folder / name).mkdir(parents=True)
        for index in range(10):
            picture = np.asarray(portrait(70 + 4 * index, 2.0 * index - 10)) * brightness
            Image.fromarray(picture.astype(np.uint8)).save(folder / name / f"{index}.jpg")


def do(command: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert command[:2] == [".venv/bin/python", "-m"]
    module, *arguments = command[2:]
    if module == "training":
        more = SHORT if arguments[0] == "train" else ()
        assert train([*arguments, *more, *DEVICE]) == 0
        return
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(SystemExit) as left:
        service.main()
    assert left.value.code == 0


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder to work in with a cache of its own; the face detector is where it was."""
    path = detector_path()
    if not path.is_file():
        pytest.skip("no face detector was fetched")
    monkeypatch.setenv("FER_DETECTOR", str(path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return str(path)


def test_the_shipped_checkpoint_measured(
    detector: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    take_photographs(tmp_path / "photographs", "happy", "sad")
    for command in commands(MEASURED):
        do(command, monkeypatch)
    said = capsys.readouterr().out
    assert "attention-fer-fer2013" in said
    [measured] = [line for line in said.splitlines() if line.startswith("test  ")][:1]
    assert measured.split()[1] == "20"


@pytest.mark.slow
def test_from_photographs_to_a_served_checkpoint(
    detector: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    take_photographs(tmp_path / "photographs", "happy", "bored")
    *done, serving = commands(TRAINED)
    assert [command[3] for command in done] == ["crop", "train", "export", "evaluate"]
    for command in done:
        do(command, monkeypatch)
    said = capsys.readouterr()
    assert "faces cut: 20" in said.out
    assert "beginning with the weights of attention-fer-ferplus" in said.err

    key, _, checkpoint = serving[0].partition("=")
    assert (key, serving[1:]) == ("FER_CHECKPOINT", ["make", "serve"])
    environ = {key: str(tmp_path / checkpoint), "FER_DETECTOR": detector, "FER_WORKERS": "1"}
    with running(environ) as server:
        photograph = (tmp_path / "photographs/happy/0.jpg").read_bytes()
        answer = httpx.post(f"{server.url}/predict", content=photograph, timeout=60,
                            headers={"content-type": "image/jpeg"}).json()  # fmt: skip
    assert set(answer["faces"][0]["probabilities"]) == {"happiness", "bored"}
    assert answer["model"]["name"] == "attention-fer-faces"
