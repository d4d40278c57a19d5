"""The convolutions of the face detector's network, packed for this CPU.

Where the CPU multiplies bfloat16 they compute in it: a look at 384x512 takes 6.1 ms of a Zen 5
core, 8.6 with the C kernels in float32, and at 768x1024 18 and 39. Elsewhere those of 3x3 are the C
kernels' (`service.kernels`).
"""

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.kernels import Kernels, kernels, winograd

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
        self.convolve = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups)
        self.slope = slope

    def forward(self, features: Tensor) -> Tensor:
        """Map features float[n, before, h, w] to float[n, after, h / stride, w / stride]."""
        features = features.to(self.convolve.weight.dtype)
        return F.leaky_relu(self.convolve(features), self.slope, inplace=True)


class PackedConvolution(nn.Module):
    """The same by the C kernels, for one thread at a time; features are channels last."""

    def __init__(self, plain: Convolution, native: Kernels) -> None:
        super().__init__()
        self._plain, self._native = plain, native
        self._by_size: OrderedDict[tuple[int, int], Step] = OrderedDict()

    def forward(self, features: Tensor) -> Tensor:
        """Map features float32 as the plain one does."""
        size = (int(features.shape[2]), int(features.shape[3]))
        if size not in self._by_size:
            step = winograd.convolution(self._native, self._plain.convolve, *size, None)
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
    """Return a copy of a network whose convolutions are as this CPU computes them fastest.

    Args:
        network: On the CPU, in float32; left as it is.
        precision: "float32", or "auto": bfloat16 where this CPU multiplies it.
    """
    packed = copy.deepcopy(network)
    packed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    narrow, native = precision == "auto" and multiplies_bfloat16(), kernels()
    for module in list(packed.modules()):
        for name, child in module.named_children():
            if not isinstance(child, Convolution):
                continue
            if narrow:
                child.to(torch.bfloat16)
            elif native is not None and winograd.suits(native, child.convolve, None):
                setattr(module, name, PackedConvolution(child, native))
    return packed
