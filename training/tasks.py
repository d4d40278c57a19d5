"""Several tasks of the same faces learnt at once: one network, their logits side by side.

A second task teaches the shared features what the first one's noise hides (Caruana 1997,
"Multitask Learning"). Nothing of it outlasts training: each task's checkpoint is an ordinary
network, with the rows of the last layer that are its own. Not its duty: steps (`training.run`).
"""

import copy
import dataclasses
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.dataset import Dataset, Split
from training.model.checkpoint import Checkpoint
from training.model.network import AttentionFER


@dataclass(frozen=True, eq=False)
class Task:
    """One task's share of the network's last layer and of the loss.

    Attributes:
        data: Its emotions, its validation and test faces.
        columns: Where its logits and targets stand.
        weight: Its share of the loss; all tasks' together are 1.
    """

    data: Dataset
    columns: slice
    weight: float


def tasks(data: Dataset, second_target: float) -> tuple[Task, ...]:
    """Lay a data set's tasks side by side.

    Args:
        data: What to learn; its second task is learnt too where `second_target` is above 0.
        second_target: Weight of the second task beside the first one's 1.

    Raises:
        ValueError: A second task is asked for and the data has none.
    """
    first = len(data.emotions)
    if second_target == 0.0:
        return (Task(data, slice(0, first), 1.0),)
    if data.second is None:
        raise ValueError(
            f"second_target is {second_target:g}, but {data.name} has one task; give FER+'s "
            "votes on FER2013's csv, or set second_target=0"
        )
    whole = 1.0 + second_target
    both = slice(first, first + len(data.second.emotions))
    return (
        Task(data, slice(0, first), 1.0 / whole),
        Task(data.second, both, second_target / whole),
    )


def train_split(learnt: tuple[Task, ...]) -> Split:
    """Return the training faces, with the targets of every task side by side."""
    targets = torch.cat([task.data.train.targets for task in learnt], dim=1)
    return Split(learnt[0].data.train.faces, targets)


def loss(logits: Tensor, targets: Tensor, learnt: tuple[Task, ...], smoothing: float) -> Tensor:
    """Return the mean cross-entropy of all tasks, weighted.

    Args:
        logits: float32[n, all classes].
        targets: float32[n, all classes]; each task's columns sum to 1 in every row.
        learnt: From `tasks`.
        smoothing: Share of each target spread over its task's emotions.

    Returns:
        float32[].
    """
    parts = [
        task.weight
        * F.cross_entropy(
            logits[:, task.columns], targets[:, task.columns], label_smoothing=smoothing
        )
        for task in learnt
    ]
    return torch.stack(parts).sum()


def network_of(network: AttentionFER, task: Task) -> AttentionFER:
    """Return a copy that names this task's emotions only.

    Args:
        network: That learns all tasks.
        task: Which to keep.
    """
    single = copy.deepcopy(network)
    rows = task.columns
    single.config = dataclasses.replace(network.config, classes=rows.stop - rows.start)
    single.classify = nn.Linear(network.classify.in_features, rows.stop - rows.start)
    single.classify.to(network.classify.weight.device)
    with torch.no_grad():
        single.classify.weight.copy_(network.classify.weight[rows])
        single.classify.bias.copy_(network.classify.bias[rows])
    return single.train(network.training)


@torch.no_grad()
def start_from(network: AttentionFER, learnt: tuple[Task, ...], checkpoint: Checkpoint) -> None:
    """Give a fresh network the weights of a trained one, its last layer emotion by emotion.

    An emotion that the checkpoint does not name keeps its fresh weights.

    Args:
        network: To change.
        learnt: What its logits mean.
        checkpoint: Of the same shape, but for its emotions.

    Raises:
        ValueError: The checkpoint's network has another shape.
    """
    shape = dataclasses.replace(checkpoint.manifest.network, classes=network.config.classes)
    if dataclasses.replace(shape, dropout=network.config.dropout) != network.config:
        raise ValueError("the checkpoint to start from has a network of another shape")
    given = checkpoint.network.state_dict()
    last = {name: given.pop(name) for name in ("classify.weight", "classify.bias")}
    network.load_state_dict(given, strict=False)
    known = checkpoint.manifest.emotions
    for task in learnt:
        for row, emotion in enumerate(task.data.emotions, task.columns.start):
            if emotion in known:
                network.classify.weight[row] = last["classify.weight"][known.index(emotion)]
                network.classify.bias[row] = last["classify.bias"][known.index(emotion)]
