"""The command, against the real application behind a real socket."""

import csv
import io
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from PIL import Image

from service.app import create_app
from service.client.__main__ import main
from service.config import Settings
from tests.service.serving import FakeEngine
from training.model.labels import FER2013_EMOTIONS

GREY = {"anger": 10, "fear": 80, "neutral": 250}  # what the fake engine calls these levels


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        app = create_app(Settings(), FakeEngine())
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, grey in GREY.items():
        place = tmp_path / "pictures" / name
        place.mkdir(parents=True)
        Image.new("L", (64, 80), grey).save(place / "face.png")
    return tmp_path / "pictures"


def test_a_folder_as_a_table(url: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", url, str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{folder}/{name}/face.png: {name} 0.760" for name in sorted(GREY)]


def test_json_lines(url: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", url, "--format", "json", f"{folder}/*/face.png"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["faces"][0]["emotion"] for line in lines] == sorted(GREY)
    assert set(lines[0]["faces"][0]["probabilities"]) == set(FER2013_EMOTIONS)


def test_csv_with_a_broken_picture(
    url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "anger" / "broken.jpg").write_bytes(b"not a picture")
    assert main(["--url", url, "--format", "csv", str(folder)]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["emotion"] for row in rows] == ["", *sorted(GREY)]
    assert "bad_image" in rows[0]["error"]
    assert (rows[1]["x"], rows[1]["width"], rows[1]["height"]) == ("0", "64", "80")


def test_annotated_copies_lie_as_the_pictures_do(url: str, folder: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    assert main(["--url", url, "--draw", str(drawn), str(folder)]) == 0
    for name in GREY:
        with Image.open(drawn / name / "face.png.png") as copy:
            assert copy.size == (64, 80)
            assert len(copy.getcolors()) > 1  # the original has one


def test_a_file_that_is_not_there_is_told(
    url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--url", url, f"{folder}/none.png", f"{folder}/fear/face.png"]) == 1
    said = capsys.readouterr().out
    assert "none.png: cannot be read: No such file" in said
    assert "fear 0.760" in said


def test_nothing_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"{folder}/*.jpg"]) == 2
    assert "no pictures" in capsys.readouterr().err


def test_no_service(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        assert main(["--url", f"http://127.0.0.1:{port}", "--retries", "0", str(folder)]) == 1
    assert capsys.readouterr().out.count("(unreachable)") == len(GREY)
