"""Why a face was recognised as it was: what the network saw, let through, and went by.

The transform, the straightened face and the attention are read off the forward pass. The evidence
is LayerCAM (Jiang et al. 2021, DOI 10.1109/TIP.2021.3089943) at the first stage's output: the
positive part of each feature's gradient, here of the emotion's logit above the mean of all logits
(what they have in common changes no probability), times the feature, summed over channels; of the
features before the network's later halvings, where a place still is a place. Each feature counts
by what it has above its mean over the face, as in attributions with a baseline: otherwise a place
where nothing is to be seen gets evidence as well, for what all places have in common.

That was chosen by covering (docs/decisions/0008): of 300 faces of PublicTest the mean probability
of 0.82 falls to 0.75 where a tenth drawn by lot is blurred, to 0.56 where it is the tenth with the
most LayerCAM, to 0.52 with this evidence; and of a smile whose mouth is painted over, the mouth
keeps 0.6 of its LayerCAM and 0.3 of this. CAM (Zhou et al. 2016, arXiv:1512.04150), whose mean is
the logit exactly, was no better than a place that is the same for all faces: its places are the
last stage's, 6 by 6, and each of them sees nearly the whole face.

Not its duty: drawing any of it; the probabilities.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import relu

from service.engine.explanation import Explanation
from training.model.attention import SpatialAttention
from training.model.manifest import InputSpec
from training.model.network import AttentionFER
from training.model.stn import identity


def explain(network: AttentionFER, images: Tensor, spec: InputSpec) -> list[Explanation]:
    """Explain the most probable emotion of each face; from one thread at a time.

    Args:
        network: In evaluation mode, its weights without gradients.
        images: float[n, 1, h, w], normalised, n at least 1; not made in inference mode.
        spec: How they were normalised.

    Returns:
        An explanation a face. The network computes twice as much again as for its logits.
    """
    with _watching(network) as seen:
        logits = network(images).logits
    # Its sum over faces: each face's gradient is its own, as no layer mixes faces.
    excess = (logits.amax(dim=1) - logits.mean(dim=1)).sum()
    (gradient,) = torch.autograd.grad(excess, seen.features)
    features = seen.features.detach()
    above = features - features.mean(dim=(2, 3), keepdim=True)
    places = relu((relu(gradient) * above).sum(dim=1))
    straight, theta = seen.straightened or (images, identity(images).expand(len(images), 2, 3))
    grey = (straight[:, 0] * spec.std + spec.mean) * 255.0
    pixels = grey.round().clamp(0, 255).to(torch.uint8)
    attention = [None] * len(images) if seen.gate is None else _arrays(torch.sigmoid(seen.gate))
    rows = zip(_arrays(theta), _arrays(pixels), attention, _arrays(places), strict=True)
    return [Explanation(*row) for row in rows]


@dataclass
class _Seen:
    """What a forward pass went through.

    Attributes:
        features: float[n, c, h, w], the first stage's output; a leaf of the graph behind it.
        straightened: The STN's images and thetas.
        gate: float[n, h, w], a spatial attention before its sigmoid.
    """

    features: Tensor = field(default_factory=lambda: torch.empty(0))
    straightened: tuple[Tensor, Tensor] | None = None
    gate: Tensor | None = None


@contextmanager
def _watching(network: AttentionFER) -> Iterator[_Seen]:
    """Watch the network's forward passes in the enclosed block, and none after it."""
    seen = _Seen()

    def keep_straightened(_: nn.Module, __: object, out: tuple[Tensor, Tensor]) -> None:
        seen.straightened = out

    def keep_gate(_: nn.Module, __: object, out: Tensor) -> None:
        seen.gate = out.detach()[:, 0]

    def begin_graph(_: nn.Module, __: object, out: Tensor) -> Tensor:
        seen.features = out.detach().requires_grad_()
        return seen.features

    handles = [network.stages[0].register_forward_hook(begin_graph)]
    if network.stn is not None:
        handles.append(network.stn.register_forward_hook(keep_straightened))
    if (shown := _shown_attention(network)) is not None:
        handles.append(shown.conv.register_forward_hook(keep_gate))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _shown_attention(network: AttentionFER) -> SpatialAttention | None:
    """Find the spatial attention that is shown: the second stage's first, else the only stage's.

    Of the shipped networks the first stage's lets everything through (0.998 on average), and those
    after the second stage's first shut off halves of the picture, much the same ones for all faces;
    this one, 12 by 12, follows brows, cheeks and mouth.
    """
    stage = network.stages[min(1, len(network.stages) - 1)]
    return next((m for m in stage.modules() if isinstance(m, SpatialAttention)), None)


def _arrays(tensor: Tensor) -> list[NDArray[Any]]:
    """Return a tensor's rows; copies, the caller's to keep."""
    return [row.copy() for row in tensor.cpu().numpy()]
