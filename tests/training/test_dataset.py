import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.synthetic import fer2013_rows, noise, write_fer2013, write_ferplus
from training import fer2013, folders
from training.dataset import DataError, Dataset, Split, load, with_emotions
from training.model.labels import FER2013_EMOTIONS, FERPLUS_EMOTIONS
from training.model.manifest import InputSpec
from training.samples import cached_files

# FERPLUS_EMOTIONS, as many votes each, in the order of the synthetic rows: 7 emotions, four times.
CLEAR = [{emotion: 10} for emotion in FER2013_EMOTIONS]
VOTES = [
    *[("Training", counts) for counts in CLEAR],
    *[("Training", {"contempt": 6, "neutral": 3, "fear": 1})] * 5,
    ("Training", {"unknown": 6, "fear": 4}),
    ("Training", {"NF": 10}),
    *[("PublicTest", counts) for counts in CLEAR],
    *[("PrivateTest", counts) for counts in CLEAR[:4]],
    ("PrivateTest", {"neutral": 5, "anger": 5}),
    ("PrivateTest", {"unknown": 6, "fear": 4}),
    ("PrivateTest", {"NF": 10}),
]


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    return write_fer2013(tmp_path / "fer2013.csv")


@pytest.fixture
def votes(tmp_path: Path) -> Path:
    return write_ferplus(tmp_path / "fer2013new.csv", VOTES)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for index, part in enumerate(("train", "val", "test")):
        for name in ("happy", "sad"):
            folder = tmp_path / "own" / part / name
            folder.mkdir(parents=True)
            Image.fromarray(noise(1, seed=index)[0]).save(folder / "x.png")
    return tmp_path / "own"


def assert_same(left: Dataset, right: Dataset) -> None:
    for part in ("train", "validation", "test", "test_majority"):
        one, other = getattr(left, part), getattr(right, part)
        assert (one is None) == (other is None)
        if one is not None:
            assert torch.equal(one.faces, other.faces)
            assert torch.equal(one.targets, other.targets)
    for name in ("name", "emotions", "fingerprint", "protocol"):
        assert getattr(left, name) == getattr(right, name)


def test_fer2013(csv: Path) -> None:
    data = load(csv)
    faces = torch.from_numpy(noise(28))
    assert (data.name, data.emotions) == ("fer2013", FER2013_EMOTIONS)
    assert data.fingerprint == hashlib.sha256(csv.read_bytes()).hexdigest()
    for split, start, stop in ((data.train, 0, 14), (data.validation, 14, 21), (data.test, 21, 28)):
        assert torch.equal(split.faces, faces[start:stop])
        assert split.faces.dtype == torch.uint8
        assert split.labels.tolist() == [i % 7 for i in range(start, stop)]
        assert split.labels.dtype == torch.int64
        assert torch.equal(split.targets, torch.eye(7)[split.labels])
        assert len(split) == stop - start
    assert data.test_majority is None
    assert data.protocol["train"] == {"faces": 14, "of": 14, "kept": "all"}


def test_ferplus(csv: Path, votes: Path) -> None:
    data = load(csv, votes)
    faces = torch.from_numpy(noise(28))
    assert (data.name, data.emotions) == ("ferplus", FERPLUS_EMOTIONS)
    assert torch.equal(data.train.faces, faces[:12])
    assert data.train.labels.tolist() == [*range(7), 7, 7, 7, 7, 7]
    contempt = data.train.targets[-1]
    assert contempt[FERPLUS_EMOTIONS.index("contempt")] == pytest.approx(6 / 9)
    assert contempt[FERPLUS_EMOTIONS.index("neutral")] == pytest.approx(3 / 9)
    assert torch.allclose(data.train.targets.sum(dim=1), torch.ones(12))
    assert torch.equal(data.validation.faces, faces[14:21])
    # Of PrivateTest all but the one without a face have a label; a tie has the first published.
    assert torch.equal(data.test.faces, faces[21:27])
    assert [FERPLUS_EMOTIONS[i] for i in data.test.labels[4:]] == ["neutral", "fear"]
    assert torch.equal(data.test.targets, torch.eye(8)[data.test.labels])
    assert data.test_majority is not None
    assert torch.equal(data.test_majority.faces, faces[21:25])
    assert data.test_majority.labels.tolist() == [0, 1, 2, 3]
    counts = {name: (part["faces"], part["of"]) for name, part in data.protocol.items()}
    assert counts == {
        "train": (12, 14),
        "validation": (7, 7),
        "test": (6, 7),
        "test_majority": (4, 7),
    }
    assert json.loads(json.dumps(data.protocol)) == data.protocol
    plain = load(csv)
    assert data.fingerprint != plain.fingerprint
    # The same training faces by FER2013's labels; its other parts are that data set's own.
    assert data.second is not None
    assert torch.equal(data.second.train.faces, data.train.faces)
    assert torch.equal(data.second.train.targets, plain.train.targets[:12])
    assert torch.equal(data.second.test.faces, plain.test.faces)
    assert data.second.protocol["train"] == data.protocol["train"]
    assert data.second.protocol["test"] == plain.protocol["test"]
    assert (data.second.name, data.second.emotions) == ("fer2013", FER2013_EMOTIONS)
    assert plain.second is None
    assert data.test_votes is not None
    assert torch.equal(data.test_votes.faces, data.test.faces)
    assert torch.allclose(data.test_votes.targets.sum(dim=1), torch.ones(6))


def test_directory(directory: Path) -> None:
    data = load(directory)
    assert (data.name, data.emotions) == ("own", ("happiness", "sadness"))
    assert [s.labels.tolist() for s in (data.train, data.validation, data.test)] == [[0, 1]] * 3
    assert torch.equal(data.validation.faces[0], torch.from_numpy(noise(1, seed=1)[0]))


def test_a_spec_of_another_size_resizes(csv: Path, directory: Path) -> None:
    spec = InputSpec(height=32, width=40, resample="lanczos")
    for data in (load(csv, spec=spec), load(directory, spec=spec)):
        assert data.train.faces.shape[1:] == (32, 40)
    expected = Image.fromarray(noise(28)[0]).resize((40, 32), Image.Resampling.LANCZOS)
    assert np.array_equal(load(csv, spec=spec).train.faces[0].numpy(), np.asarray(expected))
    assert load(csv).train.faces.shape[1:] == (48, 48)


def test_to_moves_both_tensors() -> None:
    split = Split(torch.zeros(1, 48, 48, dtype=torch.uint8), torch.ones(1, 2)).to("meta")
    assert (split.faces.device.type, split.targets.device.type) == ("meta", "meta")


def unless(index: Callable[[int], bool]) -> list[tuple[str, str, str]]:
    return [row for i, row in enumerate(fer2013_rows()) if not index(i)]


def test_an_empty_part_is_named(tmp_path: Path) -> None:
    faults = {
        "train": lambda i: i < 14,
        "validation": lambda i: 14 <= i < 21,
        "test": lambda i: i >= 21,
    }
    for part, fault in faults.items():
        path = write_fer2013(tmp_path / f"{part}.csv", unless(fault))
        with pytest.raises(DataError, match=rf"{part}\.csv: no faces for {part}, expected 1"):
            load(path)


def test_an_emotion_missing_from_training_is_named(tmp_path: Path) -> None:
    path = write_fer2013(tmp_path / "fer.csv", unless(lambda i: i in (1, 8)))
    with pytest.raises(DataError, match=r"fer\.csv: no training face shows disgust"):
        load(path)


def test_an_emotion_without_votes_in_training_is_named(tmp_path: Path, csv: Path) -> None:
    swapped = [(usage, {"fear": 10}) if "contempt" in c else (usage, c) for usage, c in VOTES]
    path = write_ferplus(tmp_path / "votes.csv", swapped)
    with pytest.raises(DataError, match=r"votes\.csv: no training face shows contempt"):
        load(csv, path)


def test_a_class_missing_from_a_directory_s_training_is_named(directory: Path) -> None:
    (directory / "test" / "sad").rename(directory / "test" / "angry")
    with pytest.raises(DataError, match="own: no training face shows anger"):
        load(directory)


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "own" / "happy"
    folder.mkdir(parents=True)
    for index, face in enumerate(noise(60)):
        Image.fromarray(face).save(folder / f"{index}.png")
    with pytest.raises(DataError, match="happiness is the only class, expected 2 or more"):
        load(tmp_path / "own")


def test_votes_must_match_the_csv(tmp_path: Path, csv: Path) -> None:
    with pytest.raises(DataError, match="votes on 27 faces, expected 28"):
        load(csv, write_ferplus(tmp_path / "short.csv", VOTES[:-1]))
    turned = write_ferplus(tmp_path / "turned.csv", VOTES[::-1])
    with pytest.raises(DataError, match=r"turned\.csv, row 2: Usage is 'PrivateTest', expected T"):
        load(csv, turned)


def test_votes_need_the_csv(directory: Path, votes: Path) -> None:
    with pytest.raises(DataError, match="votes belong to FER2013's csv"):
        load(directory, votes)


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv: cannot be opened"):
        load(tmp_path / "gone.csv")


def test_a_second_load_reads_no_source(csv: Path, votes: Path, directory: Path) -> None:
    first = load(csv), load(csv, votes), load(directory)
    with (
        mock.patch.object(fer2013, "read", side_effect=AssertionError),
        mock.patch.object(folders, "read", side_effect=AssertionError),
    ):
        second = load(csv), load(csv, votes), load(directory)
    for one, other in zip(first, second, strict=True):
        assert_same(one, other)
    assert [path.name.rpartition("-")[0] for path in cached_files()] == ["fer2013.csv", "own"]
    assert not list(csv.parent.rglob("*.npz"))  # beside the data there is nothing


def test_without_cache_nothing_is_kept_or_used(csv: Path, directory: Path) -> None:
    load(csv, cache=False)
    load(directory, cache=False)
    assert cached_files() == []
    load(csv)
    with (
        mock.patch.object(fer2013, "read", side_effect=AssertionError),
        pytest.raises(AssertionError),
    ):
        load(csv, cache=False)


def test_a_changed_csv_is_read_anew(csv: Path) -> None:
    before, stat = load(csv), csv.stat()
    content = csv.read_text()
    rows = fer2013_rows()
    rows[0] = ("6", *rows[0][1:])  # same size, another label
    write_fer2013(csv, rows)
    assert len(csv.read_text()) == len(content)
    os.utime(csv, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    after = load(csv)
    assert [before.train.labels[0].item(), after.train.labels[0].item()] == [0, 6]
    assert before.fingerprint != after.fingerprint


def test_a_changed_directory_or_reader_is_read_anew(directory: Path) -> None:
    load(directory)
    Image.fromarray(noise(1, seed=9)[0]).save(directory / "train" / "sad" / "y.png")
    assert len(load(directory).train) == 3
    with (
        mock.patch.object(folders, "READER", "folders 0"),
        mock.patch.object(folders, "read", side_effect=AssertionError),
        pytest.raises(AssertionError),
    ):
        load(directory)


def test_to_measure_on_test_alone_is_enough(directory: Path) -> None:
    for part in ("train", "val"):
        shutil.rmtree(directory / part)
    with pytest.raises(DataError, match="own: no faces for train, expected 1 or more"):
        load(directory)
    data = load(directory, to_train=False)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [0, 0, 2]
    shutil.rmtree(directory / "test" / "sad")
    assert load(directory, to_train=False).emotions == ("happiness",)


def test_without_a_face_to_measure_on_data_is_refused(directory: Path) -> None:
    for part in ("val", "test"):
        shutil.rmtree(directory / part)
    with pytest.raises(
        DataError, match=r"own: no faces for validation or test, .* 3 pictures or more"
    ):
        load(directory, to_train=False)  # one face of a class is too few to draw from


def test_emotions_spread_to_a_checkpoint_s(directory: Path) -> None:
    data = with_emotions(load(directory), FERPLUS_EMOTIONS)
    assert data.emotions == FERPLUS_EMOTIONS
    assert [s.labels.tolist() for s in (data.train, data.validation, data.test)] == [[3, 4]] * 3
    assert data.test.targets.shape == (2, 8)
    with pytest.raises(DataError, match=r"own: it has sadness, which .* names happiness, neutral"):
        with_emotions(load(directory), ("happiness", "neutral"))


def test_emotions_of_votes_spread_with_all_test_sets(csv: Path, votes: Path) -> None:
    data = load(csv, votes)
    turned = with_emotions(data, FERPLUS_EMOTIONS[::-1])
    for part in ("test", "test_majority", "test_votes"):
        assert torch.equal(getattr(turned, part).targets, getattr(data, part).targets.flip(1))


def test_a_directory_s_name_is_fit_for_a_checkpoint(directory: Path) -> None:
    odd = directory.rename(directory.with_name("two\nlines" + 90 * "x"))
    name = load(odd).name
    assert name.isprintable()
    assert len(name) == 80


def test_progress_is_told_by_the_first_load_only(directory: Path) -> None:
    seen: list[tuple[int, int]] = []
    for _ in range(2):
        load(directory, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)
    assert len(seen) == 6


OFFICIAL = {
    "train": [3995, 436, 4097, 7215, 4830, 3171, 4965],
    "validation": [467, 56, 496, 895, 653, 415, 607],
    "test": [491, 55, 528, 879, 594, 416, 626],
}


@pytest.fixture(scope="module")
def real_csv() -> Path:
    if "FER2013_CSV" not in os.environ:
        pytest.skip("FER2013_CSV does not name FER2013's csv")
    return Path(os.environ["FER2013_CSV"]).absolute()


def test_real_fer2013_has_the_official_counts(real_csv: Path) -> None:
    data = load(real_csv)
    for part, counts in OFFICIAL.items():
        assert getattr(data, part).labels.bincount().tolist() == counts
    start = time.perf_counter()
    assert_same(load(real_csv), data)
    assert time.perf_counter() - start < 5.0  # the csv itself takes longer


def test_real_ferplus_has_the_published_counts(real_csv: Path) -> None:
    if "FERPLUS_CSV" not in os.environ:
        pytest.skip("FERPLUS_CSV does not name FER+'s fer2013new.csv")
    data = load(real_csv, Path(os.environ["FERPLUS_CSV"]))
    assert data.test_majority is not None
    counts = [len(s) for s in (data.train, data.validation, data.test, data.test_majority)]
    assert counts == [28389, 3577, 3573, 3153]
    assert data.train.labels.bincount().tolist() == [2711, 236, 807, 7612, 3928, 3462, 9468, 165]
    assert data.test.labels.bincount().tolist() == [326, 23, 94, 929, 448, 446, 1278, 29]
