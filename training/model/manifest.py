"""The manifest of a checkpoint: the network's configuration, its input, the meaning of its outputs.

Plain data, without torch, since a worker whose engine is in another process imports only this.
`training.model.checkpoint` reads and writes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Activation = Literal["gelu", "relu"]
Resample = Literal["bilinear", "bicubic", "lanczos"]
Transform = Literal["similarity", "affine"]


_MAX_NAME = 100


class CheckpointError(Exception):
    """A checkpoint cannot be used; the message names the file and the reason."""


def shown(value: object) -> str:
    """Return a value from a file for an error message: short, in one line."""
    text = value if isinstance(value, str) else str(value)
    cut = text if len(text) <= 40 else f"{text[:40]}..."
    return ascii(cut)


@dataclass(frozen=True)
class InputSpec:
    """The face a checkpoint was trained on.

    Attributes:
        height: Rows of a face, in pixels.
        width: Columns of a face, in pixels.
        mean: Mean grey level of the training faces, 0 to 1.
        std: Standard deviation of their grey levels, 0 to 1.
        resample: Pillow's filter, by name, with which a larger picture becomes a face.
    """

    height: int = 48
    width: int = 48
    mean: float = 0.5077
    std: float = 0.2550
    resample: Resample = "bilinear"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: A side outside 16 to 512, a mean outside 0 to 1, a std not positive,
                or a filter that is not named above.
        """
        for name in ("height", "width"):
            side = getattr(self, name)
            if not isinstance(side, int) or not 16 <= side <= 512:
                raise ValueError(f"input spec: {name} is {side!r}, expected 16 to 512 pixels")
        if not 0.0 <= self.mean <= 1.0:
            raise ValueError(f"input spec: mean is {self.mean!r}, expected 0 to 1")
        if not 0.0 < self.std <= 1.0:
            raise ValueError(f"input spec: std is {self.std!r}, expected above 0, up to 1")
        if self.resample not in ("bilinear", "bicubic", "lanczos"):
            raise ValueError(f"input spec: resample is {self.resample!r}")


@dataclass(frozen=True)
class NetworkConfig:
    """The configuration of a network; with the weights, all that is needed to rebuild it.

    Attributes:
        classes: Number of emotions, 2 or more.
        widths: Channels of each stage. The stem and every stage after the first halve the
            resolution.
        depths: Residual blocks of each stage.
        stn: The paper's first claim: straighten the image first.
        channel_attention: Its second claim: channel attention in every block.
        spatial_attention: Its third claim: spatial attention in every block.
        activation: Its fourth claim: GELU (Hendrycks & Gimpel 2016) instead of ReLU.
        transform: The spatial transformer's kind of transform.
        dropout: Share of the last features dropped in training.
    """

    classes: int = 7
    widths: tuple[int, ...] = (64, 128, 256)
    depths: tuple[int, ...] = (1, 2, 2)
    stn: bool = True
    channel_attention: bool = True
    spatial_attention: bool = True
    activation: Activation = "gelu"
    transform: Transform = "similarity"
    dropout: float = 0.2

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: A field is invalid; names it.
        """
        if self.classes < 2:
            raise ValueError(f"network config: classes is {self.classes}, expected 2 or more")
        if not self.widths or len(self.widths) != len(self.depths):
            raise ValueError("network config: widths and depths must be of one length, 1 or more")
        if min(*self.widths, *self.depths) < 1 or max(self.widths) > 4096:
            raise ValueError("network config: widths must be 1 to 4096 and depths 1 or more")
        if max(self.depths) > 64 or len(self.depths) > 6:
            raise ValueError("network config: at most 6 stages of at most 64 blocks")
        if self.activation not in get_args(Activation):
            raise ValueError(f"network config: activation is {self.activation!r}")
        if self.transform not in get_args(Transform):
            raise ValueError(f"network config: transform is {self.transform!r}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"network config: dropout is {self.dropout}, expected 0 to below 1")


@dataclass(frozen=True)
class Manifest:
    """The description of a checkpoint.

    Attributes:
        name: The model's name, e.g. "attention-fer-fer2013".
        version: Identifies the weights, e.g. "2026-11-23.1f0c2d3e".
        network: The network's configuration.
        emotions: The meaning of each output, in order.
        input_spec: The network's input.
        temperature: Divides the logits before the softmax (Guo et al. 2017).
        metrics: Figures, each with its protocol of measurement.
        provenance: Data set, recipe, code version and the like.
        prior: Share of each emotion in the training labels, in their order (`model.prior`); None in
            older checkpoints.
        temperatures: The temperature for each named prior.
    """

    name: str
    version: str
    network: NetworkConfig
    emotions: tuple[str, ...]
    input_spec: InputSpec = field(default_factory=InputSpec)
    temperature: float = 1.0
    metrics: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    prior: tuple[float, ...] | None = None
    temperatures: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: The emotions do not match the network's classes or are not distinct; a
                temperature is out of range; a name is not printable; the prior is invalid.
        """
        names = {f"emotion {place}": name for place, name in enumerate(self.emotions)}
        for what, name in ({"name": self.name, "version": self.version} | names).items():
            if not (name.isprintable() and 1 <= len(name) <= _MAX_NAME):
                raise ValueError(f"{what} is {shown(name)}, expected 1 to 100 printable characters")
        if (
            len(self.emotions) != self.network.classes
            or len(set(self.emotions)) < self.network.classes
        ):
            raise ValueError(
                f"{len(set(self.emotions))} distinct emotions for {self.network.classes} classes"
            )
        for temperature in (self.temperature, *self.temperatures.values()):
            if not 0.01 <= temperature <= 100.0:
                raise ValueError(f"temperature is {temperature}, expected 0.01 to 100")
        if self.temperatures and (self.prior is None or not self.temperatures.keys() <= _PRIORS):
            raise ValueError(f"temperatures are for priors: {', '.join(sorted(_PRIORS))}")
        if self.prior is not None:
            _check_prior(self.prior, len(self.emotions))


_PRIORS = frozenset({"uniform", "balanced", "training"})


def _check_prior(prior: tuple[float, ...], classes: int) -> None:
    if len(prior) != classes:
        raise ValueError(f"prior has {len(prior)} shares for {classes} emotions")
    if not min(prior) > 0.0 or abs(sum(prior) - 1.0) > 1e-6:
        raise ValueError("prior has shares that are not positive or do not sum to 1")
