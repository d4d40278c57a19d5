"""Evaluates a network: its logits for a split, and the scores that follow from them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.machine import Machine
from training.model.manifest import InputSpec
from training.model.network import AttentionFER
from training.model.preprocess import normalise

BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017, arXiv:1706.04599."""


@dataclass(frozen=True)
class Scores:
    """The scores of one split, from 0 to 1.

    Attributes:
        faces: Number of faces.
        accuracy: Share of the faces whose most probable emotion is the label.
        mean_recall: Mean recall of the emotions that the split has ("balanced accuracy").
        macro_f1: Mean F1 of those emotions.
        recall: Share of each emotion's faces that were recognised, in the labels' order; None for
            an emotion that the split does not have.
        calibration_error: Expected |confidence - accuracy| over equal-width bins of confidence.
        cross_entropy: Mean negative log-likelihood of the targets, in nats (not bounded by 1).
        confusion: Number of faces of emotion i (row) that were recognised as j (column).
    """

    faces: int
    accuracy: float
    mean_recall: float
    macro_f1: float
    recall: tuple[float | None, ...]
    calibration_error: float
    cross_entropy: float
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy in equal-width bins (Guo et al. 2017, arXiv:1706.04599).

    Attributes:
        confidence: Mean confidence of each bin, 0 to 1; 0 for an empty one.
        accuracy: Share of its faces that were recognised; 0 for an empty one.
        faces: Number of faces in each bin.
        error: Expected calibration error: mean |confidence - accuracy| over all faces.
    """

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    faces: tuple[int, ...]
    error: float


@torch.inference_mode()
def predict(
    network: AttentionFER,
    faces: Tensor,
    spec: InputSpec,
    machine: Machine,
    *,
    flip: bool = False,
    batch_size: int = 256,
) -> Tensor:
    """Return the logits of faces, in float32.

    Args:
        network: In evaluation mode, on the machine's device.
        faces: uint8[n, h, w], on any device.
        spec: The network's input spec.
        machine: Where to compute.
        flip: Whether to average the log-probabilities of each face and its mirror image.
        batch_size: Faces per forward pass.

    Returns:
        float32[n, classes] on the CPU.
    """
    logits = []
    for part in torch.split(faces, batch_size):
        images = normalise(part.to(machine.device), spec)
        out = network(images).logits.float()
        if flip:
            mirrored = network(images.flip(-1)).logits.float()
            out = (out.log_softmax(1) + mirrored.log_softmax(1)) / 2
        logits.append(out.cpu())
    return torch.cat(logits)


def score(
    logits: Tensor, targets: Tensor, temperature: float = 1.0, weights: Tensor | None = None
) -> Scores:
    """Compute the scores of a split.

    Args:
        logits: float32[n, classes].
        targets: float32[n, classes], rows sum to 1; the largest is the label.
        temperature: Divides the logits.
        weights: float64[n] with mean 1, the weight of each face in calibration error and
            cross-entropy; None weights all equally.

    Returns:
        The scores.
    """
    weights = torch.ones(len(logits), dtype=torch.float64) if weights is None else weights
    labels = targets.argmax(1)
    log_probabilities = (logits / temperature).log_softmax(1)
    recognised = log_probabilities.argmax(1)
    confusion = _confusion(labels, recognised, targets.shape[1])
    hits = confusion.diagonal().double()
    present = confusion.sum(1) > 0
    recall = hits / confusion.sum(1).clamp(min=1)
    f1 = 2 * hits / (confusion.sum(0) + confusion.sum(1)).clamp(min=1)
    return Scores(
        faces=len(labels),
        accuracy=float((recognised == labels).double().mean()),
        mean_recall=float(recall[present].mean()),
        macro_f1=float(f1[present].mean()),
        recall=tuple(r if t else None for r, t in zip(recall.tolist(), present, strict=True)),
        calibration_error=reliability(log_probabilities, labels, weights).error,
        cross_entropy=float(-((targets * log_probabilities).sum(1).double() * weights).mean()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def reliability(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Reliability:
    """Bin faces by confidence.

    Args:
        logits: float32[n, classes], divided by the temperature.
        labels: int64[n].
        weights: float64[n], the weight of each face; None weights all equally.

    Returns:
        The bins and the expected calibration error.
    """
    confidence, recognised = logits.softmax(1).max(1)
    correct = recognised == labels
    which = (confidence * BINS).long().clamp(max=BINS - 1)
    weights = torch.ones(len(labels), dtype=torch.float64) if weights is None else weights
    zeros = torch.zeros(BINS, dtype=torch.float64)
    mass = zeros.index_add(0, which, weights)
    confidences = zeros.index_add(0, which, confidence.double() * weights)
    hits = zeros.index_add(0, which, correct.double() * weights)
    size = torch.where(mass > 0, mass, 1.0)
    return Reliability(
        confidence=tuple((confidences / size).tolist()),
        accuracy=tuple((hits / size).tolist()),
        faces=tuple(torch.bincount(which, minlength=BINS).tolist()),
        error=float((confidences - hits).abs().sum() / mass.sum()),
    )


def _confusion(labels: Tensor, recognised: Tensor, classes: int) -> Tensor:
    pairs = labels * classes + recognised
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)
