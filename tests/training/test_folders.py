import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.synthetic import noise
from training.folders import find_pictures, listing_key, name_emotions, read
from training.model.labels import FER2013_EMOTIONS, FERPLUS_EMOTIONS
from training.model.manifest import InputSpec
from training.samples import DataError, Samples

SPEC = InputSpec()
PARTS = ("train", "validation", "test")


def write_pictures(folder: Path, count: int, seed: int = 0, suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for face in noise(count, seed):
        Image.fromarray(face).save(folder / f"{face[0, :8].tobytes().hex()}{suffix}")


def write_split(directory: Path, classes: Iterable[str], parts: Iterable[str] = PARTS) -> Path:
    for p, part in enumerate(parts):
        for c, name in enumerate(classes):
            write_pictures(directory / part / name, 2, seed=100 * p + c)
    return directory


def read_all(directory: Path, spec: InputSpec = SPEC) -> Samples:
    return read(directory, find_pictures(directory), spec)


def counts(samples: Samples) -> list[list[int]]:
    """Faces of each part and class."""
    found = np.zeros((3, len(samples.emotions)), int)
    np.add.at(found, (samples.parts, samples.labels), 1)
    return [list(map(int, row)) for row in found]


@pytest.mark.parametrize(
    "parts", [PARTS, ("Training", "VAL", "testing"), ("train", "valid", "test")]
)
def test_folders_of_parts(tmp_path: Path, parts: tuple[str, ...]) -> None:
    samples = read_all(write_split(tmp_path, ["Angry", "happy", "SAD"], parts))
    assert samples.emotions == ("anger", "happiness", "sadness")
    assert counts(samples) == [[2] * 3] * 3


def test_each_face_keeps_its_pixels_and_label(tmp_path: Path) -> None:
    for label, name in enumerate(("b", "a")):
        write_pictures(tmp_path / name, 5, seed=label)
    samples = read_all(tmp_path)
    assert samples.emotions == ("a", "b")
    for label, seed in ((0, 1), (1, 0)):
        found = {face.tobytes() for face in samples.faces[samples.labels == label]}
        assert found == {face.tobytes() for face in noise(5, seed)}


def test_pictures_of_any_size_format_and_mode(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for suffix, mode in (("png", "RGBA"), ("jpg", "CMYK"), ("gif", "P"), ("webp", "RGB")):
        Image.new(mode, (70, 30)).save(tmp_path / "a" / f"x.{suffix}")
    samples = read_all(tmp_path, InputSpec(height=32, width=24))
    assert samples.faces.shape == (4, 32, 24)


@pytest.mark.parametrize(
    ("folder", "emotion"),
    [("ANGRY", "anger"), ("Disgusted", "disgust"), ("fearful", "fear"), ("Happy", "happiness")]
    + [("sad", "sadness"), ("surprised", "surprise"), ("Neutral", "neutral")]
    + [(emotion, emotion) for emotion in FERPLUS_EMOTIONS],
)
def test_synonyms(folder: str, emotion: str) -> None:
    assert name_emotions(Path("d"), {folder}) == {folder: emotion}


def test_emotions_come_in_the_order_of_the_labels(tmp_path: Path) -> None:
    for name in sorted(FER2013_EMOTIONS):
        write_pictures(tmp_path / name, 1)
    assert read_all(tmp_path).emotions == FER2013_EMOTIONS
    write_pictures(tmp_path / "contempt", 1)
    assert read_all(tmp_path).emotions == FERPLUS_EMOTIONS


def test_a_name_that_is_nearly_known_beside_known_ones_is_a_slip() -> None:
    said = r"folder hapiness is none of anger, .* but neutral is; name it happiness if"
    with pytest.raises(DataError, match=said):
        name_emotions(Path("d"), {"sad", "hapiness", "neutral"})
    with pytest.raises(DataError, match=r"folder Suprise is none of .* name it surprise"):
        name_emotions(Path("d"), {"Suprise", "sad"})


def test_labels_of_one_s_own_may_stand_beside_emotions() -> None:
    named = name_emotions(Path("d"), {"Happy", "bored", "Calm", "confusion"})
    assert named == {x: x for x in ("bored", "Calm", "confusion")} | {"Happy": "happiness"}


def test_synonyms_of_one_emotion_are_one_class(tmp_path: Path) -> None:
    for name in ("angry", "Anger", "sad"):
        write_pictures(tmp_path / name, 2)
    samples = read_all(tmp_path)
    assert samples.emotions == ("anger", "sadness")
    assert np.bincount(samples.labels).tolist() == [4, 2]


def test_litter_is_passed_over(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 2)
    (tmp_path / ".git").mkdir()
    (tmp_path / "README.txt").write_text("beside the classes, no class")
    for name in ("Thumbs.db", ".DS_Store"):
        (tmp_path / "a" / name).write_bytes(b"litter")
    samples = read_all(tmp_path)
    assert len(samples.faces) == 2
    assert not any("left out" in note for note in samples.notes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("zz.png", b"\x89PNG\r\n\x1a\n"),
        ("labels.txt", b"happy 1"),
        ("empty.jpg", b""),
        ("data.csv", b"a,b"),
        ("no-suffix", b"text"),
    ],
)
def test_what_is_no_picture_is_counted_named_and_left_out(
    tmp_path: Path, name: str, content: bytes
) -> None:
    write_pictures(tmp_path / "a", 2)
    (tmp_path / "a" / name).write_bytes(content)
    samples = read_all(tmp_path)
    assert len(samples.faces) == len(samples.labels) == len(samples.parts) == 2
    assert f"1 file left out, not a whole picture: a/{name}" in samples.notes


def test_many_broken_files_are_counted_and_some_named(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 2)
    for index in range(5):
        (tmp_path / "a" / f"{index}.jpg").write_bytes(b"")
    noted = "5 files left out, not a whole picture: a/0.jpg, a/1.jpg, a/2.jpg and 2 more"
    assert noted in read_all(tmp_path).notes


def test_each_face_keeps_its_label_beside_broken_files(tmp_path: Path) -> None:
    for label, name in enumerate(("a", "b")):
        write_pictures(tmp_path / name, 3, seed=label)
        (tmp_path / name / "0.png").write_bytes(b"first of its folder")
    samples = read_all(tmp_path)
    for label in (0, 1):
        found = {face.tobytes() for face in samples.faces[samples.labels == label]}
        assert found == {face.tobytes() for face in noise(3, seed=label)}


def test_links_to_nothing_and_pipes_are_no_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 2)
    (tmp_path / "a" / "link.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    assert len(read_all(tmp_path).faces) == 2


def test_a_directory_of_broken_files_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="none of its 1 files is a picture"):
        read_all(tmp_path)


def test_folders_that_are_no_class_are_named_and_left_out(tmp_path: Path) -> None:
    write_split(tmp_path, ["happy", "sad"])
    write_pictures(tmp_path / "__MACOSX" / "train" / "happy", 1)
    (tmp_path / "train" / "__MACOSX").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "train" / "lists").mkdir()
    (tmp_path / "train" / "lists" / "all.csv").write_text("a,b")
    (tmp_path / "validation" / "fear").mkdir()
    samples = read_all(tmp_path)
    assert samples.emotions == ("happiness", "sadness")
    assert counts(samples) == [[2, 2]] * 3
    note = "5 folders left out, without pictures of a class: __MACOSX, docs, train/__MACOSX and 2"
    assert samples.notes[0].startswith(note)


def test_folders_that_are_no_class_beside_classes(tmp_path: Path) -> None:
    for name in ("happy", "sad"):
        write_pictures(tmp_path / name, 20)
    write_pictures(tmp_path / "__MACOSX", 1)
    write_pictures(tmp_path / "sad" / "more", 3)
    (tmp_path / "landmarks").mkdir()
    (tmp_path / "landmarks" / "1.npy").write_bytes(b"x")
    samples = read_all(tmp_path)
    assert samples.emotions == ("happiness", "sadness")
    assert "1 folder inside a class's folder left out: sad/more" in samples.notes


@pytest.mark.parametrize(
    ("parts", "drawn", "expected"),
    [
        (["train", "test"], "validation", [[54, 18], [6, 2], [60, 20]]),
        (["train", "val"], "test", [[54, 18], [60, 20], [6, 2]]),
        (["Training"], "validation and test", [[48, 16], [6, 2], [6, 2]]),
    ],
)
def test_missing_parts_are_drawn_from_train_alike_in_each_class(
    tmp_path: Path, parts: list[str], drawn: str, expected: list[list[int]]
) -> None:
    for part in parts:
        write_pictures(tmp_path / part / "a", 60, seed=len(part))
        write_pictures(tmp_path / part / "b", 20, seed=50 + len(part))
    samples = read_all(tmp_path)
    assert counts(samples) == expected
    assert any(note.startswith(f"no folder {drawn}: ") for note in samples.notes)


def test_pictures_that_the_service_would_cut_are_counted(tmp_path: Path) -> None:
    folder = write_split(tmp_path, ["a", "b"]) / "train" / "a"
    assert read_all(tmp_path).notes == ()
    Image.new("L", (640, 480)).save(folder / "photograph.png")
    Image.new("L", (112, 112), 9).save(folder / "crop.png")
    [note] = read_all(tmp_path).notes
    assert note.startswith("1 picture larger than a crop of a face: ")
    assert note.endswith("python -m service crop does: train/a/photograph.png")


def test_test_alone_is_not_split(tmp_path: Path) -> None:
    write_pictures(tmp_path / "test" / "happy", 20)
    samples = read_all(tmp_path)
    assert counts(samples) == [[0], [0], [20]]
    assert samples.notes == ()


def test_copies_where_they_harm_are_counted(tmp_path: Path) -> None:
    write_split(tmp_path, ["a", "b"])
    original = next((tmp_path / "train" / "a").iterdir())
    (tmp_path / "test" / "a" / "copy.png").write_bytes(original.read_bytes())
    assert read_all(tmp_path).notes == ("pictures to measure on that are also in train: 1",)
    (tmp_path / "train" / "b" / "copy.png").write_bytes(original.read_bytes())
    assert "pictures that are also in another class: 1" in read_all(tmp_path).notes


def test_numbers_for_classes_are_doubted(tmp_path: Path) -> None:
    samples = read_all(write_split(tmp_path, ["1", "2"]))
    assert "the classes are numbers" in samples.notes[0]


def test_a_folder_around_the_data_is_named(tmp_path: Path) -> None:
    write_split(tmp_path / "archive", ["a", "b"])
    (tmp_path / "__MACOSX").mkdir()
    with pytest.raises(DataError, match=r"no pictures; perhaps --data .*/archive is meant"):
        find_pictures(tmp_path)


def test_a_directory_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folders, expected a folder of pictures for each"):
        find_pictures(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"no pictures in its folders, expected a folder .* class$"):
        find_pictures(tmp_path)
    write_pictures(tmp_path / "a" / "person", 1)
    with pytest.raises(DataError, match="folders inside a class's folder are not read"):
        find_pictures(tmp_path)


@pytest.mark.parametrize("name", ["two\nlines", "x" * 101])
def test_a_folder_whose_name_is_no_label_is_refused(tmp_path: Path, name: str) -> None:
    write_pictures(tmp_path / name, 1)
    with pytest.raises(DataError, match="expected at most 100 printable characters"):
        read_all(tmp_path)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: cannot be listed"):
        find_pictures(tmp_path / "gone")


def test_a_picture_gone_since_is_left_out(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 2)
    listing = find_pictures(tmp_path)
    before = listing_key(tmp_path, listing, SPEC)
    listing.pictures[0].path.unlink()
    assert listing_key(tmp_path, listing, SPEC) != before
    assert len(read(tmp_path, listing, SPEC).faces) == 1


def test_more_classes_than_labels_can_tell_are_refused(tmp_path: Path) -> None:
    for index in range(257):
        write_pictures(tmp_path / f"c{index}", 1)
    with pytest.raises(DataError, match="257 classes, expected 256 at most"):
        read_all(tmp_path)


def test_progress_counts_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 3)
    seen: list[tuple[int, int]] = []
    read(tmp_path, find_pictures(tmp_path), SPEC, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_fingerprint_and_key_follow_content_place_and_spec(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 2)
    write_pictures(tmp_path / "b", 2, seed=1)

    def state(spec: InputSpec = SPEC) -> tuple[str, str]:
        pictures = find_pictures(tmp_path)
        return read(tmp_path, pictures, spec).fingerprint, listing_key(tmp_path, pictures, spec)

    first = state()
    assert state() == first
    smaller = state(InputSpec(height=32, width=32))
    assert smaller[0] == first[0]
    assert smaller[1] != first[1]
    assert state(InputSpec(resample="bicubic"))[1] != first[1]
    moved = next((tmp_path / "a").iterdir())
    moved.rename(tmp_path / "b" / moved.name)
    assert state()[0] != first[0]
    assert state()[1] != first[1]
