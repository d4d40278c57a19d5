"""The training data: `load` reads any source into tensors in three splits.

csv [+ votes], or directory ─▶ Samples (arrays, cached) ─▶ Dataset
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training import fer2013, ferplus, folders
from training.model.grey import resized
from training.model.labels import FERPLUS_EMOTIONS
from training.model.manifest import InputSpec
from training.samples import PARTS, TEST, TRAIN, DataError, Progress, Samples, cache_path, cached

__all__ = ["DataError", "Dataset", "Split", "load"]


@dataclass(frozen=True, eq=False)
class Split:
    """Faces with their targets.

    Attributes:
        faces: uint8[n, h, w], 0-255, grey.
        targets: float32[n, classes], rows sum to 1: one-hot, or shares of annotators' votes.
    """

    faces: Tensor
    targets: Tensor

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.faces)

    @property
    def labels(self) -> Tensor:
        """The emotion with the largest target, int64[n]."""
        return self.targets.argmax(dim=1)

    def to(self, device: torch.device | str) -> "Split":
        """Return the split on a device."""
        return Split(self.faces.to(device), self.targets.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with its three splits, on the CPU.

    Attributes:
        name: "fer2013", "ferplus", or the directory's name.
        emotions: The emotion of each column of the targets.
        train: For training; contains every emotion, unless the data is for evaluation only.
        validation: For the choice of epochs, recipes and temperatures.
        test: For the final figures only.
        fingerprint: sha256 of the source's content, in hexadecimal, for provenance.
        test_majority: With FER+, the faces of `test` for which one emotion has more than half of
            the votes: a second published test set, not comparable with `test`. Else None.
        test_votes: With FER+, the test faces with the shares of the votes as targets. Else None.
        second: With FER+, the second task: the same training faces with FER2013's labels, and that
            data set's own validation and test faces. Else None.
        protocol: For each split the number of its faces, the number in the source, and the rule by
            which they were selected; can be written as JSON.
        notes: Sentences about files that were left out and about doubtful labels or splits.
    """

    name: str
    emotions: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    fingerprint: str
    test_majority: Split | None = None
    test_votes: Split | None = None
    second: "Dataset | None" = None
    protocol: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return the description of the data for a checkpoint; can be written as JSON."""
        return {"name": self.name, "sha256": self.fingerprint, "parts": dict(self.protocol)}


def load(
    data: Path,
    votes: Path | None = None,
    spec: InputSpec = InputSpec(),  # noqa: B008 - frozen
    cache: bool = True,
    progress: Progress | None = None,
    to_train: bool = True,
) -> Dataset:
    """Read a data set, from the cache if the data has not changed.

    Args:
        data: FER2013's csv, or a directory in either layout of `folders`. Of the csv, PublicTest is
            the validation split and PrivateTest the test split.
        votes: FER+'s votes for that csv. The faces then have FER+'s eight emotions, after its usual
            filters (see `ferplus`), and training targets are shares of the votes.
        spec: The size of a face, and the filter for resizing.
        cache: Whether to use the cache, `samples.cache_path`, and to write it.
        progress: Called while a source is read without the cache, with the amount done and in all.
        to_train: Whether the data is for training. Otherwise its training and validation splits may
            be empty or lack emotions.

    Returns:
        The data set, on the CPU.

    Raises:
        DataError: The data cannot be used, or the votes do not belong to it; says where and why.
    """
    if data.is_dir():
        if votes is not None:
            raise DataError(f"{votes}: votes belong to FER2013's csv, but {data} is a directory")
        samples = _read_directory(data, spec, cache, progress)
        return _checked(_one_hot_dataset(_name(data), samples), data, to_train)
    samples = _resized(_read_csv(data, cache, progress), spec)
    plain = _one_hot_dataset("fer2013", samples)
    if votes is None:
        return _checked(plain, data, to_train)
    voted = ferplus.read_votes(votes, data, samples.parts)
    plain = _checked(plain, data, to_train)
    return _checked(_voted_dataset(samples, voted, plain), votes, to_train)


def with_emotions(data: Dataset, emotions: tuple[str, ...]) -> Dataset:
    """Return a data set whose targets have a column for each of a checkpoint's emotions.

    Args:
        data: With some of these emotions, in any order.
        emotions: The emotions of the new columns.

    Raises:
        DataError: The data has an emotion that is not among them.
    """
    if data.emotions == emotions:
        return data
    if strange := [name for name in data.emotions if name not in emotions]:
        raise DataError(
            f"{data.name}: it has {', '.join(strange)}, which the checkpoint does not name; "
            f"it names {', '.join(emotions)}"
        )

    def spread(split: Split | None) -> Split | None:
        return split and with_columns(split, data.emotions, emotions)

    return replace(
        data,
        emotions=emotions,
        train=with_columns(data.train, data.emotions, emotions),
        validation=with_columns(data.validation, data.emotions, emotions),
        test=with_columns(data.test, data.emotions, emotions),
        test_majority=spread(data.test_majority),
        test_votes=spread(data.test_votes),
    )


def with_columns(split: Split, named: tuple[str, ...], emotions: tuple[str, ...]) -> Split:
    """Return a split with a target column for each of these emotions.

    Args:
        split: Whose columns mean `named`.
        named: Some of the emotions.
        emotions: What the columns are to mean.
    """
    targets = split.targets.new_zeros(len(split), len(emotions))
    targets[:, [emotions.index(name) for name in named]] = split.targets
    return Split(split.faces, targets)


def _name(directory: Path) -> str:
    """Return the name that checkpoints of this data have: the directory's, as far as it is fit."""
    name = "".join(c if c.isprintable() else "_" for c in directory.absolute().name)
    return name[:80] or "data"


def _read_csv(data: Path, cache: bool, progress: Progress | None) -> Samples:
    read = partial(fer2013.read, data, progress)
    if not cache or not data.is_file():
        return read()
    stat = data.stat()
    return cached(cache_path(data), f"{fer2013.READER} {stat.st_size} {stat.st_mtime_ns}", read)


def _read_directory(data: Path, spec: InputSpec, cache: bool, progress: Progress | None) -> Samples:
    pictures = folders.find_pictures(data)
    read = partial(folders.read, data, pictures, spec, progress)
    if not cache:
        return read()
    return cached(cache_path(data), folders.listing_key(data, pictures, spec), read)


def _resized(samples: Samples, spec: InputSpec) -> Samples:
    """Resize the csv's faces to the network's input, if it has another size."""
    if samples.faces.shape[1:] == (spec.height, spec.width):
        return samples
    faces = np.empty((len(samples.faces), spec.height, spec.width), np.uint8)
    for index, face in enumerate(samples.faces):
        faces[index] = resized(face, spec)
    return replace(samples, faces=faces)


def _one_hot_dataset(name: str, samples: Samples) -> Dataset:
    targets = np.eye(len(samples.emotions), dtype=np.float32)[samples.labels]
    keep = [samples.parts == part for part in range(len(PARTS))]
    splits = [_split(samples, targets, mask) for mask in keep]
    protocol = {
        name: {"faces": len(split), "of": len(split), "kept": "all"}
        for name, split in zip(PARTS, splits, strict=True)
    }
    train, validation, test = splits
    return Dataset(
        name, samples.emotions, train, validation, test, samples.fingerprint, protocol=protocol,
        notes=samples.notes,
    )  # fmt: skip


def _voted_dataset(samples: Samples, votes: ferplus.Votes, plain: Dataset) -> Dataset:
    # In validation and test each face has one label, by FER+'s rule for ties. PrivateTest has 159
    # ties; with another rule the labels would differ from the published ones.
    one_hot = np.eye(len(FERPLUS_EMOTIONS), dtype=np.float32)[votes.labels]
    parts = [samples.parts == part for part in range(len(PARTS))] + [samples.parts == TEST]
    filters = (votes.trainable, votes.scored, votes.scored, votes.scored & votes.majority)
    splits = [
        _split(samples, votes.soft if part == TRAIN else one_hot, mask & kept)
        for part, (mask, kept) in enumerate(zip(parts, filters, strict=True))
    ]
    protocol = {
        name: {"faces": len(split), "of": int(mask.sum()), "kept": kept}
        for name, split, mask, kept in zip(
            (*PARTS, "test_majority"), splits, parts, ferplus.FILTERS, strict=True
        )
    }
    both = sha256(f"{samples.fingerprint} {votes.fingerprint}".encode()).hexdigest()
    train, validation, test, majority = splits
    trainable = torch.from_numpy(votes.trainable[samples.parts == TRAIN])
    second = replace(
        plain,
        train=Split(train.faces, plain.train.targets[trainable]),
        protocol=dict(plain.protocol) | {PARTS[TRAIN]: protocol[PARTS[TRAIN]]},
    )
    return Dataset(
        "ferplus", FERPLUS_EMOTIONS, train, validation, test, both, majority,
        _split(samples, votes.soft, (samples.parts == TEST) & votes.scored), second, protocol,
    )  # fmt: skip


def _split(
    samples: Samples, targets: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]
) -> Split:
    return Split(torch.from_numpy(samples.faces[mask]), torch.from_numpy(targets[mask]))


def _checked(data: Dataset, source: Path, to_train: bool) -> Dataset:
    """Refuse a data set with an empty split, a single class, or a class without training faces.

    Raises:
        DataError: Names the split or the emotion.
    """
    drawn = "; a part is drawn where a class has 3 pictures or more" if source.is_dir() else ""
    if not to_train:
        if not len(data.validation) + len(data.test):
            raise DataError(f"{source}: no faces for validation or test, expected 1 or more{drawn}")
        return data
    if len(data.emotions) < 2:
        raise DataError(f"{source}: {data.emotions[0]} is the only class, expected 2 or more")
    for name, split in zip(PARTS, (data.train, data.validation, data.test), strict=True):
        if len(split) == 0:
            raise DataError(f"{source}: no faces for {name}, expected 1 or more{drawn}")
    for emotion, weight in zip(data.emotions, data.train.targets.sum(dim=0).tolist(), strict=True):
        if weight == 0:
            raise DataError(f"{source}: no training face shows {emotion}, expected 1 or more")
    return data
