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


def drawn_parts(directory: Path) -> dict[str, int]:
    """The part of each picture, by its path."""
    parts = read_all(directory).parts.tolist()
    pictures = [str(p.path.relative_to(directory)) for p in find_pictures(directory)]
    return dict(zip(pictures, parts, strict=True))


@pytest.mark.parametrize(
    "parts", [PARTS, ("Training", "VAL", "testing"), ("train", "valid", "test")]
)
def test_folders_of_parts(tmp_path: Path, parts: tuple[str, ...]) -> None:
    samples = read_all(write_split(tmp_path, ["Angry", "happy", "SAD"], parts))
    assert samples.emotions == ("anger", "happiness", "sadness")
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (samples.parts, samples.labels), 1)
    assert counts.tolist() == [[2] * 3] * 3


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


def test_one_folder_a_class_is_split_four_to_one_half_by_content(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 300)
    counts = np.bincount(read_all(tmp_path).parts, minlength=3)
    assert counts.sum() == 300
    assert abs(counts[0] - 240) < 25
    assert min(counts[1:]) > 15


def test_added_pictures_move_none_and_copies_share_a_part(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pictures(tmp_path / name, 40, seed=ord(name))
    before = drawn_parts(tmp_path)
    write_pictures(tmp_path / "a", 30, seed=7)
    copies = {}
    for path in list((tmp_path / "b").iterdir()):
        copies[f"a/0{path.name}"] = f"b/{path.name}"
        (tmp_path / "a" / f"0{path.name}").write_bytes(path.read_bytes())
    after = drawn_parts(tmp_path)
    assert before.items() <= after.items()
    assert all(after[copy] == after[original] for copy, original in copies.items())
    assert len(set(before.values())) == 3


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


def test_some_known_names_beside_unknown_ones_are_a_slip() -> None:
    with pytest.raises(DataError, match=r"folder hapiness is none of anger, .* but neutral is"):
        name_emotions(Path("d"), {"sad", "hapiness", "neutral"})


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
    assert len(read_all(tmp_path).faces) == 2


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 2)
    broken = tmp_path / "a" / "zz.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError) as caught:
        read_all(tmp_path)
    assert str(caught.value).startswith(f"{broken}: ")


def test_missing_parts_and_strange_folders_are_named(tmp_path: Path) -> None:
    write_split(tmp_path, ["a", "b"], ["train", "test"])
    with pytest.raises(DataError, match=r"no folder validation, expected train, validation, test"):
        find_pictures(tmp_path)
    write_pictures(tmp_path / "happy", 1)
    with pytest.raises(DataError, match=r"happy: beside .*, expected train, validation, test only"):
        find_pictures(tmp_path)


def test_folders_without_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folders, expected one for each class"):
        find_pictures(tmp_path)
    write_pictures(tmp_path / "a", 1)
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="b: no pictures, expected 1 or more"):
        find_pictures(tmp_path)
    write_pictures(tmp_path / "b" / "deeper", 1)
    with pytest.raises(DataError, match="deeper: a folder, expected only pictures"):
        find_pictures(tmp_path)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: cannot be listed"):
        find_pictures(tmp_path / "gone")


def test_a_picture_gone_since_is_named(tmp_path: Path) -> None:
    write_pictures(tmp_path / "a", 1)
    pictures = find_pictures(tmp_path)
    pictures[0].path.unlink()
    with pytest.raises(DataError, match=r"\.png: cannot be opened"):
        listing_key(tmp_path, pictures, SPEC)


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
