"""The command, against the real application behind a real socket."""

import csv
import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image, ImageFile

from service import __version__
from service.client.__main__ import main
from tests.service.serving import listening
from training.model.labels import FER2013_EMOTIONS

ROOT = Path(__file__).parents[3]
FULL = Path("/dev/full")  # takes no byte, as a disk that is full
GREY = {"anger": 10, "fear": 80, "neutral": 250}  # what the fake engine calls these levels


@pytest.fixture(autouse=True)
def pillow_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command sets what Pillow keeps in globals; the service's tests need them as they are."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


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
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["file", "emotion", "confidence", "box"]
    assert [line.split() for line in lines] == [
        [f"{folder}/{name}/face.png", name, "0.760"] for name in sorted(GREY)
    ]


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
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        [f"{photographs}/none.png", "no", "face"],
        [f"{photographs}/two.png", "sadness", "0.700", "0,5", "30x31"],
        [f"{photographs}/two.png", "fear", "0.700", "40,5", "30x31"],
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
@pytest.mark.parametrize("place", ["{file}/below", "{file}", "/proc", ""])
def test_a_folder_that_cannot_be_written_to(
    scripted: tuple[str, list[str]],
    folder: Path,
    option: str,
    place: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = folder / "anger" / "face.png"
    options = ["--url", scripted[0], option, place.format(file=file)]
    assert main([*options, str(folder)]) == 2
    said = capsys.readouterr().err
    assert "cannot be written to: " in said or "the name of a folder is empty" in said
    assert said.count("\n") == 1
    assert scripted[1] == []


def test_both_kinds_of_copies_in_one_folder(
    scripted: tuple[str, list[str]], photographs: Path, tmp_path: Path
) -> None:
    shown = str(tmp_path / "shown")
    arguments = ["--draw", shown, "--explain", shown, str(photographs)]
    assert main(["--url", scripted[0], *arguments]) == 0
    names = sorted(file.name for file in (tmp_path / "shown").iterdir())
    assert names == ["none.png.png", "two.png.explained.png", "two.png.png"]
    assert (tmp_path / "shown" / "two.png.explained.png").read_bytes().startswith(b"figure of")


def test_no_copy_is_written_over_a_picture(
    scripted: tuple[str, list[str]], photographs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photographs / "two").write_bytes((photographs / "two.png").read_bytes())
    files = [f"{photographs}/two", f"{photographs}/two.png"]
    assert main(["--url", scripted[0], "--draw", str(photographs), *files]) == 2
    assert "would be written over" in capsys.readouterr().err
    assert scripted[1] == []


def test_a_full_disk_takes_no_answer_away(
    scripted: tuple[str, list[str]],
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    (drawn / "two.png.png").symlink_to(FULL)
    assert main(["--url", scripted[0], "--draw", str(drawn), str(photographs)]) == 1
    said = capsys.readouterr()
    assert said.err == "fer: 1 copy was not written: No space left on device\n"
    assert "sadness" in said.out


def test_what_pillow_cannot_draw_is_said(
    scripted: tuple[str, list[str]],
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("service.client.__main__.draw", refuse_to_draw)
    assert main(["--url", scripted[0], "--draw", str(tmp_path / "x"), str(photographs)]) == 1
    assert capsys.readouterr().err == "fer: 2 copies were not written: it cannot be drawn\n"


def refuse_to_draw(*_: object) -> bytes:
    raise ValueError("it cannot be drawn")


def test_a_file_that_is_not_there_is_told(
    url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [f"{folder}/none.png", f"{folder}/anger", f"{folder}/fear/face.png"]
    assert main(["--url", url, *files]) == 1
    said = capsys.readouterr()
    assert "none.png" in said.out
    assert "  cannot be read: No such file or directory" in said.out
    assert "fear            0.760" in said.out
    assert said.err == "fer: 1 of 3 pictures were not answered\n"


def test_nothing_to_do(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"{folder}/*.jpg"]) == 2
    assert "no pictures" in capsys.readouterr().err
    assert main([""]) == 2
    assert capsys.readouterr().err == "fer: the name of a picture is empty\n"


def test_what_is_left_out_is_said(
    url: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.heic", "b.HEIC", "c.txt"):
        (folder / name).touch()
    assert main(["--url", url, str(folder)]) == 0
    assert capsys.readouterr().err == "fer: 3 files skipped: .heic 2, .txt 1\n"
    assert main(["--url", url, str(folder), f"{folder}/*.gif"]) == 1
    assert f"fer: nothing matches {folder}/*.gif\n" in capsys.readouterr().err


def test_no_service(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        assert main(["--url", f"http://127.0.0.1:{port}", "--retries", "0", str(folder)]) == 1
    said = capsys.readouterr()
    assert said.out.count("(unreachable)") == len(GREY)
    assert said.err == f"fer: {len(GREY)} of {len(GREY)} pictures were not answered\n"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--url", "http://localhost:port"], "the port is not a number"),
        (["--url", "http://localhost:99999"], "a port must be 1 to 65535"),
        (["--url", "ftp://localhost"], "must begin with http:// or https://"),
        (["--url", "http://"], "no valid host"),
        (["--api-key", "clé-de-l-été-0123"], "visible ASCII"),
        (["--timeout", "nan"], "above 0 and at most"),
        (["--timeout", "inf"], "above 0 and at most"),
        (["--timeout", "-1"], "above 0 and at most"),
        (["--timeout", "0"], "above 0 and at most"),
        (["--timeout", "soon"], "must be a number of seconds, and is not 'soon'"),
        (["--retries", "-1"], "0 or more, and is not -1"),
        (["--retries", "1.5"], "must be a whole number, and is not '1.5'"),
        (["--concurrency", "0"], "must be 1 to 256, and is not '0'"),
        (["--concurrency", "257"], "must be 1 to 256, and is not '257'"),
        (["--max-faces", "0"], "must be 1 or more, and is not '0'"),
        (["--max-faces", "²"], "must be 1 or more, and is not '²'"),
        (["--min-face", "nan"], "a share above 0 and at most 1, and is not 'nan'"),
        (["--min-face", "0"], "a share above 0 and at most 1, and is not '0'"),
        (["--format", "xml"], "invalid choice"),
        (["--nonsense"], "unrecognized arguments"),
        (["--url"], "expected one argument"),
    ],
)
def test_wrong_arguments_are_said_in_one_line(
    options: list[str], reason: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder), *options]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("fer: ")
    assert reason in said.err
    assert (said.err.count("\n"), said.out) == (1, "")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("ATTENTION_FER_URL", "http://localhost:port", "the port is not a number"),
        ("ATTENTION_FER_API_KEY", "schlüssel-0123456", "visible ASCII"),
        ("http_proxy", "http://proxy:port", "HTTP_PROXY in the environment is not valid"),
        ("all_proxy", "quic://localhost:1", "ALL_PROXY in the environment must begin with"),
    ],
)
def test_a_wrong_environment_is_said_in_one_line(
    name: str,
    value: str,
    reason: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, value)
    url = [] if name.endswith("URL") else ["--url", "http://fer.invalid"]
    assert main([*url, str(folder)]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1


def test_the_environment_of_ordinary_shells(
    scripted: tuple[str, list[str]], photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies are not asked for the machine itself, whatever their kind."""
    for name in ("all_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "socks5://localhost:1080")
    monkeypatch.setenv("no_proxy", "::1,fe80::/10,[::1]:8000,localhost,.local")
    monkeypatch.setenv("ATTENTION_FER_URL", scripted[0].removeprefix("http://"))
    monkeypatch.setenv("ATTENTION_FER_API_KEY", "")
    assert main([str(photographs)]) == 0


def test_a_host_that_cannot_be_found_fails_at_once(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def find_none(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", find_none)
    assert main(["--url", "nowhere.invalid", str(photographs)]) == 1
    assert "the host nowhere.invalid cannot be found" in capsys.readouterr().out
    assert len(asked) == 2  # one time for each picture


def test_help_names_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for part in ("0 all pictures answered", "1 some were not", "2 wrong", "130 interrupted"):
        assert part in said


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert (caught.value.code, capsys.readouterr().out) == (0, f"fer {__version__}\n")


# What only a process of its own shows.


def start(*arguments: str | bytes, **options: Any) -> subprocess.Popen[bytes]:
    pipes: dict[str, Any]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(
        [sys.executable, "-m", "service.client", *arguments], cwd=ROOT, **(pipes | options)
    )


def test_standard_input(scripted: tuple[str, list[str]], photographs: Path, tmp_path: Path) -> None:
    with (photographs / "two.png").open("rb") as picture:
        process = start(
            *("--url", scripted[0], "--format", "csv", "--draw", str(tmp_path / "x"), "-"),
            stdin=picture,
        )
        out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert out.splitlines()[1].startswith(b"-,2,0,")
    assert [file.name for file in (tmp_path / "x").iterdir()] == ["stdin.png"]


@pytest.mark.parametrize("form", ["csv", "table", "json"])
def test_a_file_name_that_is_not_utf8(
    scripted: tuple[str, list[str]], photographs: Path, tmp_path: Path, form: str
) -> None:
    name = os.fsencode(photographs) + b"/caf\xe9.png"
    with open(name, "wb") as file:
        file.write((photographs / "two.png").read_bytes())
    drawn = tmp_path / "drawn"
    process = start("--url", scripted[0], "--format", form, "--draw", str(drawn), name)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert os.listdir(os.fsencode(drawn)) == [b"caf\xe9.png.png"]
    said = {"csv": b"/caf\xe9.png,2,", "table": rb"/caf\udce9.png", "json": rb"/caf\udce9.png"}
    assert said[form] in out


def test_an_encoding_without_the_letters_of_a_name(
    scripted: tuple[str, list[str]], photographs: Path
) -> None:
    (photographs / "two.png").rename(photographs / "表情.png")
    process = start(
        *("--url", scripted[0], "--format", "csv", str(photographs)),
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    out, err = process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert rb"\u8868\u60c5.png" in out


def test_a_pipe_that_is_closed_early(scripted: tuple[str, list[str]], photographs: Path) -> None:
    process = start("--url", scripted[0], "--format", "csv", str(photographs))
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert (process.stderr.read(), process.wait()) == (b"", 1)
    process.stderr.close()


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["--format", "csv", "{folder}"]])
def test_output_onto_a_full_disk(
    scripted: tuple[str, list[str]], photographs: Path, arguments: list[str]
) -> None:
    given = [argument.format(folder=photographs) for argument in arguments]
    with FULL.open("wb") as full:
        process = start("--url", scripted[0], *given, stdout=full)
        _, err = process.communicate()
    said = b"fer: the output cannot be written: No space left on device\n"
    assert (process.returncode, err) == (1, said)


def test_closed_standard_streams(scripted: tuple[str, list[str]], photographs: Path) -> None:
    command = shlex.join([sys.executable, "-m", "service.client", "--url", scripted[0]])
    for end, status in ((f"{photographs} 2>&-", 0), ("nothing-*.png 2>&- >&-", 2), ("- <&-", 2)):
        done = subprocess.run(["sh", "-c", f"{command} {end}"], cwd=ROOT, capture_output=True)
        assert (done.returncode, b"Traceback" in done.stderr) == (status, False)


def test_an_interruption_is_said_in_one_line(photographs: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = start("--url", url, str(photographs))
        connections = [listener.accept()[0] for _ in range(2)]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
        for connection in connections:
            connection.close()
    assert (process.returncode, err) == (130, b"fer: interrupted\n")
    assert out.count(b"\n") == 1  # the table's head


def test_an_interruption_while_standard_input_is_awaited() -> None:
    process = start("-", stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(bytes(1 << 20))  # more than a pipe holds: it is being read
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, err) == (130, b"fer: interrupted\n")
