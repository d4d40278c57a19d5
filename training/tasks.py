"""Multi-task training: one network learns several label sets of the same faces.

The logits of all tasks are concatenated. A second label set improves the shared features (Caruana
1997, "Multitask Learning"). Each task's checkpoint is an ordinary network with only that task's
rows of the last layer.
"""

import copy
import dataclasses
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.config import recipes_of_shape
from training.dataset import Dataset, Split
from training.model.checkpoint import Checkpoint
from training.model.manifest import NetworkConfig
from training.model.network import AttentionFER


def blended(data: Dataset, label_share: float) -> Dataset:
    """Return a data set whose training targets combine both of its tasks.

    Args:
        data: All emotions of its second task are emotions of the first one.
        label_share: The second task's share of each target.

    Returns:
        The data set with the new training targets and one task; other splits are unchanged.

    Raises:
        ValueError: There is no second task.
    """
    if data.second is None:
        raise ValueError(
            f"label_share is {label_share:g}, but {data.name} has one task; give FER+'s "
            "votes on FER2013's csv, or take the recipe finetune"
        )
    targets = (1.0 - label_share) * data.train.targets
    columns = [data.emotions.index(emotion) for emotion in data.second.emotions]
    targets[:, columns] += label_share * data.second.train.targets
    return dataclasses.replace(data, train=Split(data.train.faces, targets), second=None)


def prior(data: Dataset) -> Tensor:
    """Return the share of each emotion in a data set's training targets, float32[classes]."""
    return data.train.targets.mean(dim=0)


@dataclass(frozen=True, eq=False)
class Task:
    """One task's share of the network's last layer and of the loss.

    Attributes:
        data: Its emotions, validation and test faces.
        columns: Its columns of logits and targets.
        weight: Its weight in the loss; the weights of all tasks sum to 1.
        offset: float32[classes], added to its logits by the loss, and to the bias of the saved
            network: `balance` times the log prior of the training labels.
    """

    data: Dataset
    columns: slice
    weight: float
    offset: Tensor


def tasks(data: Dataset, second_target: float, balance: float = 0.0) -> tuple[Task, ...]:
    """Return the tasks of a data set.

    Args:
        data: Its second task is used if `second_target` is above 0.
        second_target: The weight of the second task, relative to 1 for the first one.
        balance: The power of each task's prior, see `Task.offset`.

    Raises:
        ValueError: `second_target` is above 0, but the data has no second task.
    """
    first = len(data.emotions)
    offset = balance * prior(data).log()
    if second_target == 0.0:
        return (Task(data, slice(0, first), 1.0, offset),)
    if data.second is None:
        raise ValueError(
            f"second_target is {second_target:g}, but {data.name} has one task; give FER+'s "
            "votes on FER2013's csv, or take the recipe finetune"
        )
    whole = 1.0 + second_target
    both = slice(first, first + len(data.second.emotions))
    return (
        Task(data, slice(0, first), 1.0 / whole, offset),
        Task(data.second, both, second_target / whole, balance * prior(data.second).log()),
    )


def train_split(learnt: tuple[Task, ...]) -> Split:
    """Return the training faces, with the concatenated targets of all tasks."""
    targets = torch.cat([task.data.train.targets for task in learnt], dim=1)
    return Split(learnt[0].data.train.faces, targets)


def loss(logits: Tensor, targets: Tensor, learnt: tuple[Task, ...], smoothing: float) -> Tensor:
    """Return the weighted mean of the tasks' cross-entropies.

    Args:
        logits: float32[n, all classes].
        targets: float32[n, all classes]; each task's columns sum to 1 in every row.
        learnt: From `tasks`.
        smoothing: The share of each target that is spread over its task's emotions.

    Returns:
        float32[].
    """
    parts = [
        task.weight
        * F.cross_entropy(
            logits[:, task.columns] + task.offset.to(logits.device),
            targets[:, task.columns],
            label_smoothing=smoothing,
        )
        for task in learnt
    ]
    return torch.stack(parts).sum()


def network_of(network: AttentionFER, task: Task) -> AttentionFER:
    """Return a copy of a network with the last layer of one task.

    Args:
        network: The network of all tasks.
        task: One of them.
    """
    single = copy.deepcopy(network)
    rows = task.columns
    single.config = dataclasses.replace(network.config, classes=rows.stop - rows.start)
    single.classify = nn.Linear(network.classify.in_features, rows.stop - rows.start)
    single.classify.to(network.classify.weight.device)
    with torch.no_grad():
        single.classify.weight.copy_(network.classify.weight[rows])
        offset = task.offset.to(network.classify.bias.device)
        single.classify.bias.copy_(network.classify.bias[rows] + offset)
    return single.train(network.training)


@torch.no_grad()
def start_from(network: AttentionFER, learnt: tuple[Task, ...], checkpoint: Checkpoint) -> None:
    """Copy the weights of a trained network into a new one; the last layer emotion by emotion.

    Emotions that the checkpoint does not have keep their initial weights.

    Args:
        network: Changed in place.
        learnt: The tasks, in the order of its logits.
        checkpoint: Its network may differ in emotions and dropout only.

    Raises:
        ValueError: The checkpoint's network has another shape.
    """
    shape = dataclasses.replace(checkpoint.manifest.network, classes=network.config.classes)
    if dataclasses.replace(shape, dropout=network.config.dropout) != network.config:
        raise ValueError(_other_shape(shape))
    given = checkpoint.network.state_dict()
    last = {name: given.pop(name) for name in ("classify.weight", "classify.bias")}
    network.load_state_dict(given, strict=False)
    known = checkpoint.manifest.emotions
    for task in learnt:
        for row, emotion in enumerate(task.data.emotions, task.columns.start):
            if emotion in known:
                network.classify.weight[row] = last["classify.weight"][known.index(emotion)]
                bias = last["classify.bias"][known.index(emotion)]
                network.classify.bias[row] = bias - task.offset[row - task.columns.start]


def _other_shape(shape: NetworkConfig) -> str:
    """Say which recipes fit a checkpoint to start from, or how to make one fit."""
    fitting = ", ".join(recipes_of_shape(shape))
    sizes = f"widths {list(shape.widths)} and depths {list(shape.depths)}"
    how = f"recipes that fit are {fitting}" if fitting else "give the recipe these by --set"
    return f"the checkpoint to start from has another shape of network, {sizes}: {how}"
