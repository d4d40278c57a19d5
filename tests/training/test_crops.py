from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.crops import read_crops
from training.dataset import DataError
from training.model.labels import FERPLUS_EMOTIONS
from training.model.manifest import InputSpec

FACES = np.arange(3 * 48 * 48, dtype=np.uint32).reshape(3, 48, 48).astype(np.uint8)


def test_arrays_count_fer2013_s_names_unless_they_bring_their_own(tmp_path: Path) -> None:
    plain, named = tmp_path / "plain.npz", tmp_path / "named.npz"
    np.savez(plain, faces=FACES, labels=np.array([0, 3, 6]))
    np.savez(named, faces=FACES, labels=np.array([0, 1, 0]), emotions=["contempt", "anger"])
    split = read_crops(plain, FERPLUS_EMOTIONS, InputSpec())
    assert split.targets.shape == (3, 8)
    assert split.labels.tolist() == [0, 3, 6]
    assert np.array_equal(split.faces.numpy(), FACES)
    assert read_crops(named, FERPLUS_EMOTIONS, InputSpec()).labels.tolist() == [7, 0, 7]


def test_a_folder_has_a_folder_for_each_emotion(tmp_path: Path) -> None:
    for name, face in zip(("happy", "neutral"), FACES, strict=False):
        (tmp_path / name).mkdir()
        Image.fromarray(face).save(tmp_path / name / "face.png")
    split = read_crops(tmp_path, FERPLUS_EMOTIONS, InputSpec())
    assert sorted(split.labels.tolist()) == [3, 6]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"faces": FACES}, "with faces and labels"),
        ({"faces": FACES, "labels": np.array([0, 1])}, "expected labelled faces"),
        ({"faces": FACES[:, :40], "labels": np.array([0, 1, 2])}, "48 x 48"),
        ({"faces": FACES, "labels": np.array([0, 1, 7])}, "outside its 7 emotions"),
        ({"faces": FACES, "labels": np.array([0.0, 1.0, 2.0])}, "integer labels"),
        ({"faces": FACES.astype(float), "labels": np.array([0, 1, 2])}, "faces uint8"),
        ({"faces": FACES, "labels": np.zeros(3, int), "emotions": ["joy"]}, "it shows joy"),
        ({"faces": FACES[:0], "labels": np.array([], int)}, "expected labelled faces"),
    ],
)
def test_arrays_that_are_no_labelled_faces_are_refused(
    tmp_path: Path, arrays: dict[str, Any], said: str
) -> None:
    np.savez(tmp_path / "crops.npz", **arrays)
    with pytest.raises(DataError, match=said):
        read_crops(tmp_path / "crops.npz", FERPLUS_EMOTIONS, InputSpec())


def test_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "crops.npz").write_bytes(b"no zip")
    for path in (tmp_path / "crops.npz", tmp_path / "missing.npz"):
        with pytest.raises(DataError, match=r"expected an \.npz file"):
            read_crops(path, FERPLUS_EMOTIONS, InputSpec())
