"""Priors measured: what labels state, temperatures fitted under each, figures of a split.

What is stated once ends in the checkpoint's header; applying it is `training.model.prior`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from training.calibrate import fit_temperature
from training.dataset import Dataset, Split
from training.evaluate import Scores, score
from training.model.manifest import Manifest
from training.model.prior import POWERS, Shares, adjustment, named_prior, reweigh
from training.tasks import blended, prior


def stated_prior(data: Dataset, recipe: Mapping[str, Any]) -> Shares:
    """Return the share of each emotion in what a network was trained on.

    Teachers' shares of the targets are left out: their mean is near the labels'.

    Args:
        data: That it was trained on.
        recipe: Its recipe, as a checkpoint's provenance has it.
    """
    if share := recipe.get("label_share", 0.0):
        data = blended(data, share)
    shares = prior(data).double()
    return tuple((shares / shares.sum()).tolist())


def weights_to(labels: Tensor, shares: Shares) -> Tensor:
    """Return what each face counts, so that a split's emotions are as frequent as a prior says.

    Args:
        labels: int64[n].
        shares: Of each emotion; of those that no label names, the others' shares make up.

    Returns:
        float64[n], with mean 1.
    """
    counts = torch.bincount(labels, minlength=len(shares)).clamp(min=1)
    weights = (torch.tensor(shares, dtype=torch.float64) / counts)[labels]
    return weights / weights.mean()


def fit_temperatures(logits: Tensor, targets: Tensor, training: Shares) -> dict[str, float]:
    """Fit a temperature for each prior that has a name, on faces weighted to it.

    Args:
        logits: float32[n, classes] of a split that was not trained on.
        targets: float32[n, classes].
        training: The training labels' prior.
    """
    temperatures = {}
    for name in POWERS:
        shares = named_prior(training, name)
        shift = torch.tensor(shares).log() - torch.tensor(training).log()
        weights = weights_to(targets.argmax(1), shares)
        temperatures[name] = fit_temperature(logits, targets, weights, shift)
    return temperatures


def score_under(logits: Tensor, split: Split, manifest: Manifest, shares: Shares) -> Scores:
    """Score a split under a prior, with the answers that the service gives.

    Calibration error and cross-entropy are of the split weighted to that prior; accuracy and
    recalls are of its faces as they are.

    Args:
        logits: float32[n, classes] of the split.
        split: With the checkpoint's emotions.
        manifest: States its labels' prior.
        shares: The prior.
    """
    probabilities = (logits / manifest.temperature).softmax(1).numpy()
    adjusted = torch.from_numpy(reweigh(probabilities, adjustment(manifest, shares)))
    log_probabilities = adjusted.clamp(min=torch.finfo(torch.float32).tiny).log()
    return score(log_probabilities, split.targets, weights=weights_to(split.labels, shares))
