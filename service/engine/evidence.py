"""Computes explanations: the transform, the attention map and the evidence map.

The transform, the straightened face and the attention map come from the forward pass. The evidence
map is LayerCAM (Jiang et al. 2021, DOI 10.1109/TIP.2021.3089943) at the first stage's output, where
the resolution is highest: the positive part of each feature's gradient, times the feature, summed
over channels. Two deviations:

- The gradient is that of the emotion's logit minus the mean of all logits. What all logits have in
  common changes no probability.
- A feature counts by its difference from its mean over the face, as in attribution methods with a
  baseline. Otherwise places without content get evidence as well.

The choice was measured by covering (docs/decisions/0008), on 300 faces of PublicTest with a mean
probability of 0.82. Blurring a tenth of the face lowers it to 0.75 where the tenth is random, to
0.56 where it has the most LayerCAM, and to 0.52 where it has the most of this evidence. When the
mouth of a smile is painted over, it keeps 0.6 of its LayerCAM and 0.3 of this evidence. CAM (Zhou
et al. 2016, arXiv:1512.04150) was no better than one fixed place for all faces: it works on the
last stage's 6 by 6 places, and each of them sees nearly the whole face.
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


def explain(
    network: AttentionFER, images: Tensor, emotions: Tensor, spec: InputSpec
) -> list[Explanation]:
    """Explain what speaks for an emotion of each face; from one thread at a time.

    Args:
        network: In evaluation mode, its weights without gradients.
        images: float[n, 1, h, w], normalised, n at least 1; not made in inference mode.
        emotions: int64[n], the index of each face's emotion, on the same device.
        spec: How they were normalised.

    Returns:
        An explanation for each face. It takes about three times as long as the logits alone.
    """
    with _watching(network) as seen:
        logits = network(images).logits
    # Summed over faces: no layer mixes faces, so that each face gets its own gradient.
    chosen = logits.gather(1, emotions[:, None])[:, 0]
    excess = (chosen - logits.mean(dim=1)).sum()
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
    """Intermediate results of one forward pass.

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
    """Collect the intermediate results of forward passes within the `with` block."""
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
    """Return the spatial attention to show: the first of the second stage, or of the only stage.

    In the shipped networks, that of the first stage lets everything through (0.998 on average).
    Those after the second stage's first shut off large parts of the picture, nearly the same ones
    for all faces. This one, of 12 by 12 places, follows brows, cheeks and mouth.
    """
    stage = network.stages[min(1, len(network.stages) - 1)]
    return next((m for m in stage.modules() if isinstance(m, SpatialAttention)), None)


def _arrays(tensor: Tensor) -> list[NDArray[Any]]:
    """Return copies of a tensor's rows."""
    return [row.copy() for row in tensor.cpu().numpy()]
