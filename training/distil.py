"""Distillation: training targets blended with the probabilities of trained networks.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531. Deviation:
the teachers' mean is blended into the targets at temperature 1, which for a cross-entropy equals a
separate loss. There are two ways. `soften`: the teachers classify each face and its mirror image
once, before the first step, so that steps cost no more. `Panel`: they classify the student's
augmented images at every step, which costs a forward pass of each teacher (Beyer et al. 2022,
"Knowledge distillation: A good teacher is patient and consistent", arXiv:2106.05237).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from training.dataset import Split
from training.evaluate import predict
from training.machine import Machine
from training.model.checkpoint import Checkpoint, digest
from training.state import write_whole
from training.tasks import Task

FACES_AT_ONCE = 256
"""Faces in a batch of the teachers; with several processes each takes every n-th batch."""


def soften(
    split: Split,
    learnt: tuple[Task, ...],
    teachers: Sequence[Checkpoint],
    share: float,
    machine: Machine,
    kept: Path | None = None,
) -> Split:
    """Blend the teachers' probabilities of the training faces into their targets.

    The teachers of a task are those with the same emotions; their mean counts. Several processes
    share the faces.

    Args:
        split: From `tasks.train_split`.
        learnt: The tasks, in the order of the targets' columns.
        teachers: Trained networks, on any device.
        share: The teachers' share of each target, 0 to 1.
        machine: Where to compute.
        kept: A file that caches the blended targets for a resumed run. It is read if it belongs to
            the same faces, labels, teachers and share, else written.

    Returns:
        The same faces, with the blended targets.

    Raises:
        ValueError: A task has no teachers, a teacher has the emotions of no task, or `share` is 0.
    """
    groups = _groups(learnt, teachers, share)
    key = _key(split, teachers, share)
    if kept and kept.is_file():
        stored = torch.load(kept, map_location=split.targets.device, weights_only=True)
        if stored["key"] == key:
            return Split(split.faces, stored["targets"])
    targets = split.targets.clone()
    for task, group in groups:
        probabilities = _mean(group, split.faces, machine).to(targets.device)
        columns = task.columns
        targets[:, columns] = (1.0 - share) * targets[:, columns] + share * probabilities
    if kept and machine.leads:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, lambda part: torch.save({"key": key, "targets": targets}, part))
    return Split(split.faces, targets)


class Panel:
    """Teachers that classify the student's augmented images at every step."""

    def __init__(
        self,
        learnt: tuple[Task, ...],
        teachers: Sequence[Checkpoint],
        share: float,
        machine: Machine,
        part_share: float = 0.0,
    ) -> None:
        """Move the teachers to the machine's device.

        Args:
            learnt: The tasks, in the order of the targets' columns.
            teachers: Trained networks with the student's input spec. The teachers of a task are
                those with the same emotions.
            share: The teachers' share of each target, 0 to 1.
            machine: Where to compute.
            part_share: The weight of teachers that name only some of a task's emotions, in the
                geometric mean of their probabilities and the others', 0 to 1; 0 refuses them.

        Raises:
            ValueError: As from `soften`.
        """
        whole = [
            teacher for teacher in teachers if not (part_share and _is_partial(teacher, learnt))
        ]
        self.groups = _groups(learnt, whole, share)
        self._partial = [teacher for teacher in teachers if teacher not in whole]
        self.share, self.machine, self._part_share = share, machine, part_share
        for teacher in teachers:
            teacher.network.to(machine.device, memory_format=machine.memory_format).eval()  # type: ignore[call-overload]
            if machine.compiles:
                teacher.network.compile()

    @torch.no_grad()
    def blend(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the targets of a batch, blended with the teachers' probabilities.

        Args:
            images: float32[n, 1, h, w], as the student gets them.
            targets: float32[n, all classes], from the labels.
        """
        blended = targets.clone()
        for task, group in self.groups:
            probabilities = self._classify(group, images)
            if self._partial:
                part = self._partial[0].manifest.emotions
                columns = [task.data.emotions.index(emotion) for emotion in part]
                probabilities = combine(
                    probabilities, self._classify(self._partial, images), columns, self._part_share
                )
            blended[:, task.columns].lerp_(probabilities, self.share)
        return blended

    def _classify(self, teachers: Sequence[Checkpoint], images: Tensor) -> Tensor:
        """Return the mean of the teachers' probabilities, float32[n, classes]."""
        answers = []
        for teacher in teachers:
            with self.machine.autocast():
                logits = teacher.network(images).logits
            answers.append((logits.float() / teacher.manifest.temperature).softmax(1))
        return torch.stack(answers).mean(0)


def combine(whole: Tensor, part: Tensor, columns: Sequence[int], share: float) -> Tensor:
    """Return the weighted geometric mean of two answers, of which one names fewer emotions.

    The emotions that only `whole` names keep the probability that it gives them.

    Args:
        whole: float32[n, classes], probabilities.
        part: float32[n, fewer classes], probabilities.
        columns: Which of the classes `part` names.
        share: The weight of `part`, 0 to 1.

    Returns:
        float32[n, classes], probabilities.
    """
    named = whole[:, columns]
    mixed = torch.lerp(named.log(), part.log(), share).softmax(1)
    combined = whole.clone()
    combined[:, columns] = mixed * named.sum(1, keepdim=True)
    return combined


def _is_partial(teacher: Checkpoint, learnt: tuple[Task, ...]) -> bool:
    """Tell whether a teacher names some of the emotions of the only task, and no others."""
    named, known = teacher.manifest.emotions, learnt[0].data.emotions
    return len(learnt) == 1 and set(named) < set(known)


def _groups(
    learnt: tuple[Task, ...], teachers: Sequence[Checkpoint], share: float
) -> list[tuple[Task, list[Checkpoint]]]:
    """Return each task with the teachers that have its emotions, or raise ValueError."""
    if not share:
        raise ValueError("teachers are named, but the recipe's teacher_share is 0")
    known = {task.data.emotions for task in learnt}
    for teacher in teachers:
        if teacher.manifest.emotions not in known:
            raise ValueError(
                f"a teacher names {', '.join(teacher.manifest.emotions)}; no task learnt does"
            )
    groups = []
    for task in learnt:
        group = [t for t in teachers if t.manifest.emotions == task.data.emotions]
        if not group:
            raise ValueError(
                f"teacher_share is {share:g}, but no teacher names the emotions of {task.data.name}"
            )
        groups.append((task, group))
    return groups


def _key(split: Split, teachers: Sequence[Checkpoint], share: float) -> str:
    """Return a sha256 of everything that determines the blended targets."""
    sha256 = hashlib.sha256(f"{share}".encode())
    for tensor in (split.faces, split.targets):
        sha256.update(tensor.cpu().numpy().tobytes())
    for teacher in teachers:
        sha256.update(f"{digest(teacher.network)} {teacher.manifest.temperature}".encode())
    return sha256.hexdigest()


def _mean(group: Sequence[Checkpoint], faces: Tensor, machine: Machine) -> Tensor:
    """Return the mean of the networks' probabilities of each face, float32[n, classes].

    Computed in the precision of a training step, which suffices for a mean.
    """
    total = torch.zeros(len(faces), len(group[0].manifest.emotions), device=machine.device)
    mine = range(machine.rank * FACES_AT_ONCE, len(faces), machine.world * FACES_AT_ONCE)
    for start in _shown(mine, machine):
        rows = slice(start, start + FACES_AT_ONCE)
        for teacher in group:
            network = teacher.network.to(machine.device).eval()
            spec = teacher.manifest.input_spec
            with machine.autocast():
                logits = predict(network, faces[rows], spec, machine, flip=True)
            logits = logits.to(machine.device) / teacher.manifest.temperature
            total[rows] += logits.softmax(1)
    if machine.world > 1:
        dist.all_reduce(total)
    return total / len(group)


def _shown(starts: range, machine: Machine) -> "tqdm[int]":
    return tqdm(starts, desc="teachers", leave=False, disable=not machine.leads)
