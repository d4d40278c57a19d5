"""Several labellings of the same faces learnt at once: one network, their logits side by side.

A second labelling teaches the shared features what the first one's noise hides (Caruana 1997,
"Multitask Learning"). Nothing of it outlasts training: each labelling's checkpoint is an ordinary
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
class Labelling:
    """One labelling's share of the network's last layer and of the loss.

    Attributes:
        data: Its emotions, its validation and test faces.
        columns: Where its logits and targets stand.
        weight: Its share of the loss; all labellings' together are 1.
    """

    data: Dataset
    columns: slice
    weight: float


def labellings(data: Dataset, second_target: float) -> tuple[Labelling, ...]:
    """Lay a data set's labellings side by side.

    Args:
        data: What to learn; its second labelling is learnt too where `second_target` is above 0.
        second_target: Weight of the second labelling beside the first one's 1.

    Raises:
        ValueError: A second labelling is asked for and the data has none.
    """
    first = len(data.emotions)
    if second_target == 0.0:
        return (Labelling(data, slice(0, first), 1.0),)
    if data.second is None:
        raise ValueError(
            f"second_target is {second_target:g}, but {data.name} has one labelling; give FER+'s "
            "votes on FER2013's csv, or set second_target=0"
        )
    whole = 1.0 + second_target
    both = slice(first, first + len(data.second.emotions))
    return (
        Labelling(data, slice(0, first), 1.0 / whole),
        Labelling(data.second, both, second_target / whole),
    )


def train_split(learnt: tuple[Labelling, ...]) -> Split:
    """Return the training faces, with the targets of every labelling side by side."""
    targets = torch.cat([labelling.data.train.targets for labelling in learnt], dim=1)
    return Split(learnt[0].data.train.faces, targets)


def loss(
    logits: Tensor, targets: Tensor, learnt: tuple[Labelling, ...], smoothing: float
) -> Tensor:
    """Return the mean cross-entropy of all labellings, weighted.

    Args:
        logits: float32[n, all classes].
        targets: float32[n, all classes]; each labelling's columns sum to 1 in every row.
        learnt: From `labellings`.
        smoothing: Share of each target spread over its labelling's emotions.

    Returns:
        float32[].
    """
    parts = [
        labelling.weight
        * F.cross_entropy(
            logits[:, labelling.columns], targets[:, labelling.columns], label_smoothing=smoothing
        )
        for labelling in learnt
    ]
    return torch.stack(parts).sum()


def network_of(network: AttentionFER, labelling: Labelling) -> AttentionFER:
    """Return a copy that names this labelling's emotions only.

    Args:
        network: That learns all labellings.
        labelling: Which to keep.
    """
    single = copy.deepcopy(network)
    rows = labelling.columns
    single.config = dataclasses.replace(network.config, classes=rows.stop - rows.start)
    single.classify = nn.Linear(network.classify.in_features, rows.stop - rows.start)
    single.classify.to(network.classify.weight.device)
    with torch.no_grad():
        single.classify.weight.copy_(network.classify.weight[rows])
        single.classify.bias.copy_(network.classify.bias[rows])
    return single.train(network.training)


@torch.no_grad()
def start_from(
    network: AttentionFER, learnt: tuple[Labelling, ...], checkpoint: Checkpoint
) -> None:
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
    for labelling in learnt:
        for row, emotion in enumerate(labelling.data.emotions, labelling.columns.start):
            if emotion in known:
                network.classify.weight[row] = last["classify.weight"][known.index(emotion)]
                network.classify.bias[row] = last["classify.bias"][known.index(emotion)]
