"""Answers under another prior: how frequent each emotion is taken to be before a face is seen.

A network learns its training labels' prior with everything else: where a third of the faces are
neutral, a doubtful face is called neutral. Bayes' rule exchanges it afterwards: multiply each
probability by the new share over the old one, and divide by the sum (Saerens et al. 2002,
DOI 10.1162/089976602753284446; "logit adjustment", Menon et al. 2021, arXiv:2007.07314).
Deviation: confidence is scaled too, by a temperature fitted for the new prior.

Without torch: a process that serves calls this for each answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import numpy.typing as npt

from training.model.manifest import Manifest, shown

Shares = tuple[float, ...]
"""The share of each emotion, in the labels' order; they sum to 1."""

POWERS: Final[Mapping[str, float]] = MappingProxyType(
    {"uniform": 0.0, "training": 1.0, "balanced": 0.5}
)
"""The priors with a name: each is the training labels' prior to this power, scaled to sum to 1."""

_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, eq=False)
class Adjustment:
    """What turns an engine's log-probabilities into those under another prior.

    Attributes:
        scale: The engine's temperature over the one for that prior.
        shift: float32[classes], the logarithm of the new share over the old one.
    """

    scale: float
    shift: npt.NDArray[np.float32]


def named_prior(training: Shares, name: str) -> Shares:
    """Return the prior of a name.

    Args:
        training: The training labels' prior.
        name: One of `POWERS`.

    Raises:
        ValueError: There is no such name.
    """
    if name not in POWERS:
        expected = f"{', '.join(POWERS)} or emotion:share,..."
        raise ValueError(f"prior is {shown(name)}, expected {expected}")
    return _scaled([share ** POWERS[name] for share in training])


def read_prior(text: str, manifest: Manifest) -> Shares:
    """Read a prior as settings and queries have it.

    Args:
        text: "uniform", "training" or "balanced"; or "emotion:share,emotion:share" with every
            emotion of the checkpoint once. Shares are 0 or more and need not sum to 1; an emotion
            with 0 is never the answer.
        manifest: Of the checkpoint.

    Raises:
        ValueError: Says what is wrong.
    """
    training = _training_prior(manifest)
    if ":" not in text:
        return named_prior(training, text)
    # Counted first: a client may send thousands of shares.
    pairs = text.split(",") if text.count(",") < len(manifest.emotions) else []
    texts = {name.strip(): share for name, _, share in (pair.partition(":") for pair in pairs)}
    if len(pairs) != len(texts) or texts.keys() != set(manifest.emotions):
        raise ValueError(f"prior needs a share for each of {', '.join(manifest.emotions)}, once")
    shares = {emotion: _share(share) for emotion, share in texts.items()}
    if not any(shares.values()):
        raise ValueError("prior needs at least one share above 0")
    return _scaled([shares[emotion] for emotion in manifest.emotions])


def adjustment(manifest: Manifest, prior: Shares) -> Adjustment:
    """Prepare for a prior; made once, it serves any number of answers.

    The temperature is the one fitted for that prior. For a prior without a name, it is
    interpolated between those that have one, by how far the prior lies on the way from the training
    labels' to the uniform one.

    Args:
        manifest: Of a checkpoint that states its prior.
        prior: The share of each emotion, 0 or more; they sum to 1.

    Raises:
        ValueError: The checkpoint states no prior, or the shares are not as many as its emotions.
    """
    training = _training_prior(manifest)
    if len(prior) != len(training):
        raise ValueError(f"prior has {len(prior)} shares for {len(training)} emotions")
    with np.errstate(divide="ignore"):  # a share of 0: never the answer
        shift = np.log(prior) - np.log(training)
    temperature = _temperature(manifest, _power(shift, training))
    return Adjustment(manifest.temperature / temperature, shift.astype(np.float32))


def reweigh(probabilities: npt.NDArray[np.float32], how: Adjustment) -> npt.NDArray[np.float32]:
    """Return probabilities under another prior.

    Args:
        probabilities: float32[..., classes], as an engine gives them: at the checkpoint's
            temperature, under the training labels' prior.
        how: From `adjustment`.

    Returns:
        float32[..., classes]; rows sum to 1.
    """
    logits = np.log(np.maximum(probabilities, _SMALLEST)) * np.float32(how.scale) + how.shift
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: npt.NDArray[np.float32] = weights / weights.sum(axis=-1, keepdims=True)
    return result


def _training_prior(manifest: Manifest) -> Shares:
    if manifest.prior is None:
        raise ValueError(
            f"{manifest.name} {manifest.version} does not state its labels' prior, which every "
            "prior but 'training' needs"
        )
    return manifest.prior


def _scaled(shares: list[float]) -> Shares:
    whole = sum(shares)
    return tuple(share / whole for share in shares)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share < 1e6:
        raise ValueError(f"prior has the share {text.strip()[:20]!r}, expected a number from 0")
    return share


def _power(shift: npt.NDArray[np.float64], training: Shares) -> float:
    """Return the power of the training prior that is nearest to a prior, 0 to 1."""
    possible = np.isfinite(shift)
    towards, whole = shift[possible], -np.log(training)[possible]
    towards, whole = towards - towards.mean(), whole - whole.mean()
    length = float(whole @ whole)
    return 1.0 - float(np.clip(towards @ whole / length, 0.0, 1.0)) if length > 1e-12 else 1.0


def _temperature(manifest: Manifest, power: float) -> float:
    known = sorted((POWERS[name], value) for name, value in manifest.temperatures.items())
    powers, values = zip(*known, strict=True) if known else ((1.0,), (manifest.temperature,))
    return float(np.interp(power, powers, values))
