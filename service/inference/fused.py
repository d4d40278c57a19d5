"""The network as a CPU computes it fastest: each convolution one call of oneDNN's.

Eager torch gives a single face's convolutions to a slow loop of its own, packs their weights anew
in every pass, and reads each result once more for the activation behind it. Here weights are
packed once and the activation is part of the convolution, by the operators that torch's compiler
calls; nothing is compiled. Where the CPU has instructions for bfloat16, the stages' convolutions
compute in it, and all else in float32: the transform, because positions need the digits, the stem,
because the picture does, and what is between convolutions, because it is faster.

Not its duty: folding batch norm, which comes before; GPUs.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from training.model.attention import ChannelAttention, SpatialAttention
from training.model.network import AttentionFER
from training.model.preprocess import InputSpec

# Weights are packed as a batch of this size reads them best. Any will do: what costs is to pack
# for no size at all, which makes AVX2 pack anew, at 20 ms a convolution, in every pass.
_PACKED_FOR = 8

Shapes = Mapping[nn.Module, list[int]]
"""What each convolution is given: faces, channels, rows and columns."""


def can_fuse() -> bool:
    """Tell whether this build of torch has oneDNN."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def multiplies_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16 by itself: emulated, it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def fuse(network: AttentionFER, spec: InputSpec, dtype: torch.dtype) -> AttentionFER:
    """Return a network that computes what another does, faster, without gradients, on the CPU.

    Args:
        network: On the CPU, in evaluation mode, batch norm folded; left as it is.
        spec: Sizes of the faces that it will see.
        dtype: What the stages' convolutions compute in: float32, which changes the logits by
            rounding alone, or bfloat16, where `multiplies_bfloat16`.

    Returns:
        The network; it maps float32 to float32. To be called from one thread at a time.
    """
    fused = copy.deepcopy(network).requires_grad_(False)
    shapes = _shapes(fused, spec)
    if fused.stn is not None:
        fused.stn.localise = _sequence(fused.stn.localise, shapes, torch.float32)
    fused.stem = _sequence(fused.stem, shapes, torch.float32)
    fused.stages = _sequence(fused.stages, shapes, dtype)
    return fused


class PackedConvolution(nn.Module):
    """A convolution and the activation behind it, its weights in the order that oneDNN reads."""

    def __init__(
        self,
        conv: nn.Conv2d,
        shape: list[int],
        dtype: torch.dtype,
        activation: nn.Module | None = None,
        widen: bool = True,
    ) -> None:
        """Pack a convolution.

        Args:
            conv: Its weights, padding by numbers.
            shape: Of what it will be given, apart from how many.
            dtype: What it computes in.
            activation: `nn.GELU` or `nn.ReLU`, if any.
            widen: Return float32; else what it computes in.
        """
        super().__init__()
        way = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        self._way: tuple[Any, ...] = way
        self._dtype, self._widen = dtype, widen
        self._activation = _name(activation)
        weight = conv.weight.detach().to(dtype, memory_format=torch.channels_last)
        # Not buffers: nothing moves or saves these, and an opaque layout could not be.
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *way, shape)
        self._bias = None if conv.bias is None else conv.bias.detach().to(dtype)

    def forward(self, features: Tensor) -> Tensor:
        """Map float[n, c, h, w] to another such, channels last."""
        name, algorithm = self._activation
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            features.to(self._dtype), self._weight, self._bias, *self._way, name, [], algorithm
        )
        return out.float() if self._widen else out


class ChannelGate(nn.Module):
    """Channel attention without the indices of its maxima, which only a gradient needs."""

    def __init__(self, attention: ChannelAttention) -> None:
        """Take its layers."""
        super().__init__()
        self.shared = attention.shared

    def forward(self, features: Tensor) -> Tensor:
        """Weigh the channels of features float[n, c, h, w]; same shape back."""
        descriptors = torch.cat((features.mean(dim=(2, 3)), features.amax(dim=(2, 3))))
        mean, maximum = self.shared(descriptors).chunk(2)
        return features * torch.sigmoid(mean + maximum)[:, :, None, None]


class SpatialGate(nn.Module):
    """Spatial attention, likewise."""

    def __init__(self, attention: SpatialAttention, shape: list[int]) -> None:
        """Take its convolution, and the shape of what that will be given."""
        super().__init__()
        self.conv = PackedConvolution(attention.conv, shape, torch.float32)

    def forward(self, features: Tensor) -> Tensor:
        """Weigh the places of features float[n, c, h, w]; same shape back."""
        mean, maximum = features.mean(dim=1, keepdim=True), features.amax(dim=1, keepdim=True)
        return features * torch.sigmoid(self.conv(torch.cat((mean, maximum), dim=1)))


def _shapes(network: AttentionFER, spec: InputSpec) -> Shapes:
    """Run a network to see what each convolution is given."""
    shapes: dict[nn.Module, list[int]] = {}

    def keep(module: nn.Module, given: tuple[Tensor]) -> None:
        shapes[module] = [_PACKED_FOR, *given[0].shape[1:]]

    convolutions = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    handles = [module.register_forward_pre_hook(keep) for module in convolutions]
    with torch.inference_mode():
        network(torch.zeros(1, 1, spec.height, spec.width))
    for handle in handles:
        handle.remove()
    return shapes


def _fused(module: nn.Module, shapes: Shapes, dtype: torch.dtype) -> nn.Module:
    if isinstance(module, nn.Sequential):
        return _sequence(module, shapes, dtype)
    if isinstance(module, ChannelAttention):
        return ChannelGate(module)
    if isinstance(module, SpatialAttention):
        return SpatialGate(module, shapes[module.conv])
    for name, child in module.named_children():
        setattr(module, name, _fused(child, shapes, dtype))
    return module


def _sequence(sequence: nn.Sequential, shapes: Shapes, dtype: torch.dtype) -> nn.Sequential:
    return nn.Sequential(*_layers(list(sequence), shapes, dtype))


def _layers(layers: list[nn.Module], shapes: Shapes, dtype: torch.dtype) -> Iterator[nn.Module]:
    """Yield the layers of a sequence, each convolution joined with the activation behind it."""
    while layers:
        layer = layers.pop(0)
        if not isinstance(layer, nn.Conv2d):
            yield _fused(layer, shapes, dtype)
            continue
        activated = bool(layers) and isinstance(layers[0], nn.GELU | nn.ReLU)
        activation = layers.pop(0) if activated else None
        into_another = bool(layers) and isinstance(layers[0], nn.Conv2d)
        yield PackedConvolution(layer, shapes[layer], dtype, activation, widen=not into_another)


def _name(activation: nn.Module | None) -> tuple[str, str]:
    """Return what oneDNN calls an activation, and which formula of it is meant."""
    if isinstance(activation, nn.GELU):
        return "gelu", activation.approximate
    return ("none" if activation is None else "relu"), ""
