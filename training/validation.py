"""Validation after an epoch: scores the averaged network, and saves the best one of each task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.dataset import Dataset
from training.evaluate import Scores, predict, score
from training.machine import Machine
from training.model.checkpoint import save_checkpoint
from training.model.manifest import InputSpec, Manifest
from training.model.network import AttentionFER
from training.model.prior import Shares
from training.tasks import Task, network_of, prior

BEST_FILE = "best.safetensors"


def best_checkpoint(folder: Path, data: Dataset) -> Path:
    """Return the checkpoint of a run's best epoch for the task with this data.

    The first task's is `best.safetensors`; a further task's has its name in the file name.
    """
    other = _other_file(folder, data)
    return other if other.is_file() else folder / BEST_FILE


def _other_file(folder: Path, data: Dataset) -> Path:
    return folder / f"best-{data.name}.safetensors"


def validate(
    network: AttentionFER, learnt: Sequence[Task], spec: InputSpec, machine: Machine
) -> list[Scores]:
    """Score a network on each task's validation faces.

    With the recipe's `balance`, the saved network has a power of the prior in its bias. The scores
    here are without it, as the loss has trained the logits.
    """
    scores = []
    for task in learnt:
        split = task.data.validation
        logits = predict(network, split.faces, spec, machine)[:, task.columns]
        scores.append(score(logits, split.targets))
    return scores


def figures(scores: Sequence[Scores]) -> dict[str, float | None]:
    """Return an epoch's scores as entries of the history; None if it was not validated."""
    first = scores[0] if scores else None
    return {
        "validation_accuracy": first.accuracy if first else None,
        "validation_macro_f1": first.macro_f1 if first else None,
        "validation_mean_recall": first.mean_recall if first else None,
        "validation_cross_entropy": first.cross_entropy if first else None,
        "second_validation_accuracy": scores[1].accuracy if len(scores) > 1 else None,
    }


@dataclass(frozen=True, eq=False)
class Keeper:
    """Saves the best network of each task.

    Attributes:
        folder: For the checkpoints.
        learnt: The tasks.
        spec: The network's input.
        by_recall: Whether the best one has the highest mean recall, which weights all emotions
            equally; else the highest accuracy.
        provenance: For the checkpoints' manifests.
    """

    folder: Path
    learnt: tuple[Task, ...]
    spec: InputSpec
    by_recall: bool
    provenance: Mapping[str, Any]

    def keep(
        self,
        network: AttentionFER,
        scores: Sequence[Scores],
        entry: dict[str, Any],
        best: dict[str, float],
    ) -> None:
        """Save the network for each task for which it is the best so far.

        Args:
            network: The network of all tasks; a checkpoint has only its task's last layer.
            scores: Of each task.
            entry: The epoch's entry of the history.
            best: The best score so far, by the name of the task's data set; updated.
        """
        for task, scored in zip(self.learnt, scores, strict=True):
            reached = scored.mean_recall if self.by_recall else scored.accuracy
            if reached > best.get(task.data.name, -1.0):
                best[task.data.name] = reached
                self._write(network_of(network, task), task, entry)

    def _write(self, network: AttentionFER, task: Task, entry: dict[str, Any]) -> None:
        first = task is self.learnt[0]
        path = self.folder / BEST_FILE if first else _other_file(self.folder, task.data)
        manifest = Manifest(
            name=f"attention-fer-{task.data.name}",
            version=f"epoch-{entry['epoch']}",
            network=network.config,
            emotions=task.data.emotions,
            input_spec=self.spec,
            metrics={"validation": entry},
            provenance=dict(self.provenance) | {"data": task.data.describe()},
            prior=_shares(task.data),
        )
        save_checkpoint(path, network, manifest, torch.float32)


def _shares(data: Dataset) -> Shares | None:
    """Return the prior of a data set's training labels; None if an emotion is missing."""
    shares = prior(data).double()
    return tuple((shares / shares.sum()).tolist()) if (shares > 0).all() else None
