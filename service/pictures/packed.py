"""Convolutions as a CPU computes them fastest: packed once, the activation part of them.

In bfloat16 where the CPU multiplies it, else in float32, and there those of 3x3 by the C kernels
beside the engine. The face detector's network is made of them.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.engine.cpu.kernels import library, winograd

Network = TypeVar("Network", bound=nn.Module)
Precision = Literal["auto", "float32"]
Step = Callable[[Tensor], Tensor]

# A kernel packed for one size of picture is kept for so many sizes: photographs have few.
_SIZES_KEPT = 6


class Convolution(nn.Module):
    """A convolution and the leaky ReLU behind it; slope 0 is ReLU."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int,
        *,
        slope: float,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        shape = (after, before // groups, kernel, kernel)
        self.weight = nn.Parameter(torch.empty(shape).to(memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.empty(after))
        self.stride, self.padding, self.groups, self.slope = stride, kernel // 2, groups, slope

    def forward(self, features: Tensor) -> Tensor:
        """Map features float[n, before, h, w] to float[n, after, h / stride, w / stride]."""
        out = F.conv2d(
            features, self.weight, self.bias, self.stride, self.padding, groups=self.groups
        )
        return F.leaky_relu(out, self.slope, inplace=True)


class PackedConvolution(nn.Module):
    """The same without gradients, for one thread at a time; features are channels last."""

    def __init__(self, plain: Convolution, dtype: torch.dtype) -> None:
        super().__init__()
        self._plain, self._dtype = plain, dtype
        self._by_size: OrderedDict[tuple[int, int], Step] = OrderedDict()
        self._general = _general(plain, dtype)
        self._conv = _as_module(plain)
        wide = dtype == torch.float32 and winograd.suits(self._conv, None)
        self._native = library() if wide else None

    def forward(self, features: Tensor) -> Tensor:
        """Map features as the plain one does."""
        if self._native is None:
            return self._general(features.to(self._dtype))
        size = (int(features.shape[2]), int(features.shape[3]))
        if size not in self._by_size:
            step = winograd.convolution(self._native, self._conv, *size, None)
            self._by_size[size] = step
            if len(self._by_size) > _SIZES_KEPT:
                self._by_size.popitem(last=False)
        self._by_size.move_to_end(size)
        return F.leaky_relu(self._by_size[size](features), self._plain.slope, inplace=True)


def multiplies_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16 by itself: emulated, it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def pack(network: Network, precision: Precision = "auto") -> Network:
    """Return a copy of a network whose convolutions are packed for this CPU.

    Args:
        network: On the CPU, in float32; left as it is.
        precision: "float32", or "auto": bfloat16 where this CPU multiplies it.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return network
    narrow = precision == "auto" and multiplies_bfloat16()
    dtype = torch.bfloat16 if narrow else torch.float32
    packed = copy.deepcopy(network)
    for module in list(packed.modules()):
        for name, child in module.named_children():
            if isinstance(child, Convolution):
                setattr(module, name, PackedConvolution(child, dtype))
    return packed


def _general(plain: Convolution, dtype: torch.dtype) -> Step:
    way = ([plain.padding] * 2, [plain.stride] * 2, [1, 1], plain.groups)
    weight = plain.weight.detach().to(dtype, memory_format=torch.channels_last)
    shape = [1, plain.weight.shape[1] * plain.groups, 48, 64]  # any: packed alike for all
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *way, shape)
    bias, convolve = plain.bias.detach().to(dtype), torch.ops.mkldnn._convolution_pointwise.default
    name, scalars = ("leaky_relu", [plain.slope]) if plain.slope else ("relu", [])
    return lambda features: convolve(features, packed, bias, *way, name, scalars, "")


def _as_module(plain: Convolution) -> nn.Conv2d:
    after, before, kernel, _ = plain.weight.shape
    conv = nn.Conv2d(
        before * plain.groups, after, kernel, plain.stride, plain.padding, groups=plain.groups
    )
    conv.weight.data, conv.bias.data = plain.weight.data, plain.bias.data  # type: ignore[union-attr]
    return conv
