"""Faces cut out of a folder, through the command line."""

import csv
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from service import __main__
from service.app import open_detector, read_detector
from service.config import Settings, detector_path
from service.crop import REPORT_FILE, main
from service.pictures.finder import FaceFinder
from service.pictures.search import FaceSearch
from tests.service.collages import Placed, collage, landscape, portrait
from tests.service.made_pictures import encoded
from training.crops import read_crops
from training.model.labels import FERPLUS_EMOTIONS
from training.model.manifest import InputSpec

needs_detector = pytest.mark.skipif(
    not detector_path().is_file(), reason="no face detector was fetched"
)


def write(path: Path, picture: Image.Image | bytes) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = picture if isinstance(picture, bytes) else encoded(picture, "JPEG")
    path.write_bytes(content)
    return content


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    source = tmp_path / "photographs"
    write(source / "happy" / "one.jpg", collage(Placed(300, 400, 220)))
    write(source / "happy" / "two.jpg", collage(Placed(300, 400, 220), Placed(760, 300, 90)))
    write(source / "happy" / "small.jpg", portrait(40))
    write(source / "sad" / "none.jpg", landscape(640, 480))
    write(source / "sad" / "turned.jpg", collage(Placed(300, 400, 220), angle=30))
    write(source / "sad" / "broken.jpg", b"\xff\xd8\xff")
    write(source / "sad" / "notes.txt", b"not a picture")
    write(source / "sad" / ".hidden.jpg", b"hidden")
    write(source / "__MACOSX" / "sad" / "x.jpg", b"litter")
    return source


def report(destination: Path) -> dict[str, dict[str, str]]:
    with (destination / REPORT_FILE).open(newline="") as file:
        return {row["picture"]: row for row in csv.DictReader(file)}


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@needs_detector
def test_faces_are_cut_as_serving_cuts_them(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "faces"
    assert main([str(photographs), str(out)]) == 0
    named = ["happy/one.jpg", "happy/two.jpg", "happy/small.jpg", "sad/turned.jpg"]
    assert files(out) == {REPORT_FILE, *(f"{name}.png" for name in named)}
    settings = Settings(device="cpu")
    weights = read_detector(settings)
    assert weights is not None
    detector = open_detector(weights, settings)
    finder = FaceFinder(InputSpec(), settings.max_image_pixels, detector)
    for name in named:
        served = finder.find((photographs / name).read_bytes(), FaceSearch()).faces[0].pixels
        assert np.array_equal(np.asarray(Image.open(out / f"{name}.png")), served)
    # And training and `--wild` read them to the same pixels.
    split = read_crops(out, FERPLUS_EMOTIONS, InputSpec())
    assert sorted(split.labels.tolist()) == [3, 3, 3, 4]
    assert np.array_equal(split.faces[-1].numpy(), served)

    rows = report(out)
    assert {name: row["result"] for name, row in rows.items()} == {
        "happy/one.jpg": "face",
        "happy/two.jpg": "face",
        "happy/small.jpg": "whole picture",
        "sad/none.jpg": "no face",
        "sad/turned.jpg": "face",
        "sad/broken.jpg": "refused",
        "sad/notes.txt": "refused",
    }
    assert rows["happy/two.jpg"]["faces_found"] == "2"
    assert 150 < int(rows["happy/one.jpg"]["size_px"]) < 300
    assert rows["sad/broken.jpg"]["reason"]
    said = capsys.readouterr().out
    assert "without a face: 1 (sad/none.jpg)" in said
    assert "not readable: 2 (sad/broken.jpg, sad/notes.txt)" in said
    assert "pictures of several faces, the largest was cut: 1" in said
    assert f"faces: {out}\n" in said
    assert [line.split() for line in said.splitlines()[1:3]] == [
        ["happy", "2", "1", "0", "0", "0"],
        ["sad", "1", "0", "0", "1", "2"],
    ]


@needs_detector
def test_nothing_is_overwritten_and_a_stopped_run_goes_on(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again = tmp_path / "faces", ["--resume"]
    assert main([str(photographs), str(out)]) == 0
    whole = report(out)
    assert main([str(photographs), str(out)]) == 2
    assert "not empty; give another folder, or --resume" in capsys.readouterr().err
    mine, cut = out / "happy" / "one.jpg.png", out / "happy" / "two.jpg.png"
    content = cut.read_bytes()
    mine.write_bytes(b"my own")
    cut.unlink()
    assert main([str(photographs), str(out), *again]) == 0
    assert mine.read_bytes() == b"my own"
    assert cut.read_bytes() == content
    assert report(out) == whole
    (out / REPORT_FILE).write_text("damaged\n1,2")
    assert main([str(photographs), str(out), *again]) == 0
    after = report(out)
    assert after.keys() == whole.keys()
    assert after["happy/one.jpg"]["result"] == "kept"
    assert after["sad/none.jpg"] == whole["sad/none.jpg"]


@needs_detector
def test_ctrl_c_leaves_whole_files_and_says_how_to_go_on(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "faces"
    with mock.patch("service.crop.crop_all", side_effect=KeyboardInterrupt):
        assert main([str(photographs), str(out)]) == 130
    assert "--resume goes on" in capsys.readouterr().err
    assert main([str(photographs), str(out), "--resume"]) == 0
    assert len(files(out)) == 5


@needs_detector
def test_a_full_disk_is_named_and_leaves_no_part_of_a_file(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "faces"
    with mock.patch.object(Path, "replace", side_effect=OSError(28, "No space left", "x.png")):
        assert main([str(photographs), str(out)]) == 2
    assert "crop: x.png: No space left" in capsys.readouterr().err
    assert not any(name.endswith(".png") for name in files(out))


@needs_detector
@pytest.mark.parametrize("key", ["FER_MAX_IMAGE_BYTES", "FER_MAX_IMAGE_PIXELS"])
def test_the_service_s_bounds_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    write(tmp_path / "in" / "a" / "one.jpg", collage(Placed(300, 400, 220)))
    monkeypatch.setenv(key, "2000")
    if key.endswith("BYTES"):
        monkeypatch.setenv("FER_MAX_REQUEST_BYTES", "4000")
    assert main([str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    [row] = report(tmp_path / "out").values()
    assert row["result"] == "refused"
    assert "2000" in row["reason"] or "2,000" in row["reason"]


@pytest.mark.parametrize(
    ("source", "destination", "said"),
    [
        ("gone", "out", "gone: no such folder"),
        ("in", "in", "neither in"),
        ("in", "in/faces", "neither in"),
        ("in", ".", "nor around it"),
        ("in", "full", "full: not empty"),
        ("in", "in/../in/a", "neither in"),
        ("empty", "out", "empty: no files"),
    ],
)
def test_wrong_folders_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: str,
    destination: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in" / "a" / "one.jpg", b"")
    write(tmp_path / "full" / "mine.txt", b"")
    (tmp_path / "empty").mkdir()
    before = files(tmp_path)
    assert main([source, destination]) == 2
    assert said in capsys.readouterr().err
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("FER_DETECTOR", "none", "nothing can be cut without the face detector"),
        ("FER_DETECTOR", "/gone", "/gone"),
        ("FER_CHECKPOINT", "/gone", "/gone"),
        ("FER_CHEKPOINT", "x", "did you mean FER_CHECKPOINT"),
    ],
)
def test_wrong_settings_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    key: str,
    value: str,
    said: str,
) -> None:
    if key != "FER_DETECTOR" and not detector_path().is_file():
        pytest.skip("no face detector was fetched")
    write(tmp_path / "in" / "one.jpg", b"")
    monkeypatch.setenv(key, value)
    assert main([str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_it_is_a_command_of_the_service(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["service", "crop", "--help"])
    with pytest.raises(SystemExit) as left:
        __main__.main()
    assert left.value.code == 0
    assert "python -m service crop" in capsys.readouterr().out
