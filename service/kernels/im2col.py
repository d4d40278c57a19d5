"""Convolutions of any kernel and stride, as products over what each kernel sees.

oneDNN begins slower, and reaches less of what a core can multiply.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.kernels import Kernels, activation_number, as_read


def suits(kernels: Kernels, conv: nn.Conv2d, activation: nn.Module | None) -> bool:
    """Tell whether a convolution, with the activation behind it, can be computed so."""
    square = len({*conv.kernel_size}) == len({*conv.stride}) == len({*conv.padding}) == 1
    plain = conv.dilation == (1, 1) and conv.groups == 1 and conv.padding_mode == "zeros"
    divisible = conv.out_channels % kernels.lanes == 0
    return square and plain and divisible and activation_number(activation) is not None


def convolution(
    kernels: Kernels, conv: nn.Conv2d, height: int, width: int, activation: nn.Module | None
) -> Callable[[Tensor], Tensor]:
    """Pack a convolution, one that `suits`, as `winograd.convolution` packs those that suit it.

    What is returned is exact to float32's rounding, and gives the rows and columns that kernel,
    stride and padding leave.
    """
    number, before, after = activation_number(activation), conv.in_channels, conv.out_channels
    kernel, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    down, across = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    weight = _packed(conv.weight.detach(), kernels.panel)
    bias = torch.zeros(after) if conv.bias is None else conv.bias.detach().contiguous()
    scratch = torch.empty(kernels.library.im2col_scratch(kernel, before, after))

    def convolve(features: Tensor) -> Tensor:
        features, faces = as_read(features, before, height, width), len(features)
        out = torch.empty((faces, after, down, across), memory_format=torch.channels_last)
        pointers = [t.data_ptr() for t in (features, weight, bias, out, scratch)]
        sizes = (faces, height, width, before, after, kernel, stride, padding)
        kernels.library.im2col(*pointers, *sizes, number)
        return out

    return convolve


def _packed(weight: Tensor, panel: int) -> Tensor:
    """Return weights float32[after, before, k, k] as im2col.c reads them: panel, depth, lane."""
    deep = weight.permute(0, 2, 3, 1).flatten(1)
    deep = F.pad(deep, (0, 0, 0, -len(deep) % panel))  # channels that nobody reads
    return deep.view(-1, panel, deep.shape[1]).transpose(1, 2).contiguous()
