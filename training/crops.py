"""Reads crops from other sources, for evaluation only: an .npz file, or a folder per emotion."""

import logging
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
import torch.nn.functional as F

from training import folders
from training.dataset import DataError, Split
from training.model.labels import FER2013_EMOTIONS
from training.model.manifest import InputSpec
from training.samples import TEST

_log = logging.getLogger(__name__)


def read_crops(path: Path, emotions: tuple[str, ...], spec: InputSpec) -> Split:
    """Read labelled faces.

    Args:
        path: An .npz with `faces` uint8[n, h, w] and `labels` integers[n]. The labels are indices
            in its array `emotions`, or without that in FER2013's seven emotions. Or a folder with
            a folder of pictures per emotion; files that cannot be read are logged as a warning.
        emotions: The emotions of the targets' columns.
        spec: The size of a face.

    Returns:
        All faces, with one label each.

    Raises:
        DataError: They cannot be read, or a label is not among `emotions`.
    """
    faces, labels, names = _read_folder(path, spec) if path.is_dir() else _read_arrays(path)
    if faces.shape[1:] != (spec.height, spec.width) or not 0 < len(faces) == len(labels):
        raise DataError(f"{path}: expected labelled faces of {spec.height} x {spec.width} pixels")
    used = [names[index] for index in np.unique(labels)]
    if strange := [name for name in used if name not in emotions]:
        raise DataError(f"{path}: it shows {strange[0]}, expected only {', '.join(emotions)}")
    columns = [emotions.index(name) if name in emotions else -1 for name in names]
    places = torch.tensor(columns)[torch.from_numpy(labels.astype(np.int64))]
    return Split(torch.from_numpy(faces), F.one_hot(places, len(emotions)).float())


def _read_folder(path: Path, spec: InputSpec) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    listing = folders.find_pictures(path)
    pictures = tuple(replace(picture, part=TEST) for picture in listing.pictures)
    samples = folders.read(path, replace(listing, pictures=pictures), spec)
    for note in samples.notes:
        _log.warning("%s: %s", path, note)
    return samples.faces, samples.labels, samples.emotions


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = arrays.get("emotions", FER2013_EMOTIONS)
            faces, labels = arrays["faces"], arrays["labels"]
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise DataError(f"{path}: expected an .npz file with faces and labels") from error
    if (
        faces.dtype != np.uint8
        or faces.ndim != 3
        or labels.ndim != 1
        or labels.dtype.kind not in "iu"
    ):
        raise DataError(f"{path}: expected faces uint8[n, h, w] and integer labels[n]")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
        raise DataError(f"{path}: a label is outside its {len(names)} emotions")
    return faces, labels, tuple(map(str, names))
