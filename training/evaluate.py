"""How well a network does: probabilities of a split, and every figure that is drawn from them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from training.machine import Machine
from training.model.manifest import InputSpec
from training.model.network import AttentionFER
from training.model.preprocess import normalise

BINS = 15
"""Bins of the calibration error, as many as in Guo et al. 2017, arXiv:1706.04599."""


@dataclass(frozen=True)
class Scores:
    """Figures of one split, all from 0 to 1.

    Attributes:
        faces: How many faces were scored.
        accuracy: Share whose most probable emotion is the label.
        macro_f1: F1 averaged over the emotions, each counting the same.
        recall: Share of each emotion's faces that were recognised, in the labels' order.
        calibration_error: Expected |confidence - accuracy| over equal-width bins of confidence.
        cross_entropy: Mean negative log-likelihood of the targets, in nats (not bounded by 1).
        confusion: faces of emotion i (row) called emotion j (column).
    """

    faces: int
    accuracy: float
    macro_f1: float
    recall: tuple[float, ...]
    calibration_error: float
    cross_entropy: float
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy in equal-width bins (Guo et al. 2017, arXiv:1706.04599).

    Attributes:
        confidence: Mean confidence of each bin, 0 to 1; 0 where it is empty.
        accuracy: Share of its faces that were recognised; 0 where it is empty.
        faces: How many faces it holds.
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
    """Return the logits of faces, in full precision.

    Args:
        network: In evaluation mode, on the machine's device.
        faces: uint8[n, h, w], on any device.
        spec: The network's input spec.
        machine: Where to compute.
        flip: Average the log-probabilities of each face and its mirror image.
        batch_size: Faces a forward pass.

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


def score(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Scores:
    """Compute the figures of a split.

    Args:
        logits: float32[n, classes].
        targets: float32[n, classes], rows that sum to 1; the largest is the label.
        temperature: What logits are divided by before softmax.

    Returns:
        The figures.
    """
    labels = targets.argmax(1)
    log_probabilities = (logits / temperature).log_softmax(1)
    called = log_probabilities.argmax(1)
    confusion = _confusion(labels, called, targets.shape[1])
    hits = confusion.diagonal().double()
    recall = hits / confusion.sum(1).clamp(min=1)
    f1 = 2 * hits / (confusion.sum(0) + confusion.sum(1)).clamp(min=1)
    return Scores(
        faces=len(labels),
        accuracy=float((called == labels).double().mean()),
        macro_f1=float(f1.mean()),
        recall=tuple(recall.tolist()),
        calibration_error=reliability(log_probabilities, labels).error,
        cross_entropy=float(-(targets * log_probabilities).sum(1).double().mean()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def reliability(logits: Tensor, labels: Tensor) -> Reliability:
    """Bin faces by confidence.

    Args:
        logits: float32[n, classes], divided by the temperature where there is one.
        labels: int64[n].

    Returns:
        The bins and the expected calibration error.
    """
    confidence, called = logits.softmax(1).max(1)
    correct = called == labels
    which = (confidence * BINS).long().clamp(max=BINS - 1)
    counts = torch.bincount(which, minlength=BINS)
    zeros = torch.zeros(BINS, dtype=torch.float64)
    confidences = zeros.index_add(0, which, confidence.double())
    hits = zeros.index_add(0, which, correct.double())
    size = counts.clamp(min=1)
    return Reliability(
        confidence=tuple((confidences / size).tolist()),
        accuracy=tuple((hits / size).tolist()),
        faces=tuple(counts.tolist()),
        error=float((confidences - hits).abs().sum() / len(confidence)),
    )


def _confusion(labels: Tensor, called: Tensor, classes: int) -> Tensor:
    pairs = labels * classes + called
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)
