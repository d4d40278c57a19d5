"""The command, against the real application behind a real socket."""

import csv
import io
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from service.client.__main__ import main
from tests.service.serving import listening
from training.model.labels import FER2013_EMOTIONS

GREY = {"anger": 10, "fear": 80, "neutral": 250}  # what the fake engine calls these levels


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with listening() as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, grey in GREY.items():
        place = tmp_path / "pictures" / name
        place.mkdir(parents=True)
        face = Image.new("L", (64, 80), grey - 12)  # of one tone it would be no face
        face.paste(grey + 12, (32, 0, 64, 80))
        face.save(place / "face.png")
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
    assert (rows[0]["faces"], rows[1]["faces"], rows[1]["detection"]) == ("", "1", "")


def test_annotated_copies_lie_as_the_pictures_do(url: str, folder: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn"
    assert main(["--url", url, "--draw", str(drawn), str(folder)]) == 0
    for name in GREY:
        with Image.open(drawn / name / "face.png.png") as copy:
            assert copy.size == (64, 80)
            assert len(copy.getcolors() or []) > 1  # the original has one


# What a photograph may hold, from a service that answers by the picture's width.

FACES = [
    {
        "box": {"x": 40 * n, "y": 5, "width": 30, "height": 31},
        "detection": 0.9,
        "emotion": emotion,
        "confidence": 0.7,
        "probabilities": {emotion: 0.7},
    }
    for n, emotion in enumerate(("sadness", "fear"))
]


class Scripted(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]]

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        self.asked.append(self.path)
        if self.path.startswith("/explain"):
            self.answer("image/png", b"figure of " + content[:4])
            return
        with Image.open(io.BytesIO(content)) as picture:
            faces = FACES[: picture.width // 40]
        size, model = {"width": 80, "height": 40}, {"name": "m", "version": "1"}
        body = {"faces": faces, "image": size, "model": model, "timing": {}}
        self.answer("application/json", json.dumps(body).encode())

    def answer(self, kind: str, content: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Handler", (Scripted,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    place = tmp_path / "photographs"
    place.mkdir()
    for name, width in (("none", 39), ("two", 80)):
        Image.new("L", (width, 40), 90).save(place / f"{name}.png")
    return place


def test_several_faces_and_none_as_a_table(
    scripted: tuple[str, list[str]], photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--url", scripted[0], str(photographs)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{photographs}/none.png: no face",
        f"{photographs}/two.png: sadness 0.700 at 0,5 30x31",
        f"{photographs}/two.png: fear 0.700 at 40,5 30x31",
    ]


def test_several_faces_and_none_as_csv(
    scripted: tuple[str, list[str]], photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--url", scripted[0], "--format", "csv", str(photographs)]) == 0
    none, one, two = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (none["faces"], none["emotion"], none["error"]) == ("0", "", "")
    assert [row["faces"] for row in (one, two)] == ["2", "2"]
    assert [row["face"] for row in (one, two)] == ["0", "1"]
    assert [row["emotion"] for row in (one, two)] == ["sadness", "fear"]
    assert (two["x"], two["height"], two["detection"]) == ("40", "31", "0.9")


def test_several_faces_and_none_as_json(
    scripted: tuple[str, list[str]], photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--url", scripted[0], "--format", "json", str(photographs)]) == 0
    none, two = map(json.loads, capsys.readouterr().out.splitlines())
    assert none["faces"] == []
    unsaid: dict[str, Any] = {"landmarks": {}, "roll": None, "quality": None}  # by an older service
    assert two["faces"] == [face | unsaid for face in FACES]


def test_how_to_look_for_faces_is_passed_on(
    scripted: tuple[str, list[str]], photographs: Path
) -> None:
    url, asked = scripted
    options = ["--detect", "always", "--max-faces", "3", "--min-face", "0.03"]
    options += ["--prior", "uniform"]
    assert main(["--url", url, *options, f"{photographs}/two.png"]) == 0
    assert asked == ["/predict?detect=always&max_faces=3&min_face=0.03&prior=uniform"]


def test_a_prior_that_the_service_refuses_is_said(
    url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--url", url, "--prior", "uniform", f"{folder}/anger/face.png"]) == 1
    assert "prior" in capsys.readouterr().out


def test_explanations_of_pictures_with_faces(
    scripted: tuple[str, list[str]], photographs: Path, tmp_path: Path
) -> None:
    url, asked = scripted
    shown = tmp_path / "shown"
    assert main(["--url", url, "--explain", str(shown), "--detect", "auto", str(photographs)]) == 0
    assert [file.name for file in shown.iterdir()] == ["two.png.png"]
    assert (shown / "two.png.png").read_bytes() == b"figure of \x89PNG"
    assert sorted(asked) == ["/explain?detect=auto", *["/predict?detect=auto"] * 2]


@pytest.mark.parametrize("option", ["--draw", "--explain"])
def test_a_folder_that_cannot_be_made(
    folder: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "anger" / "face.png"
    assert main([option, f"{file}/below", str(folder)]) == 2
    assert "cannot be made: Not a directory" in capsys.readouterr().err


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
