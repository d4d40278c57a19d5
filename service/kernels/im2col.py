"""Convolutions of any kernel size and stride, as matrix products over copied inputs (im2col).

It has less overhead per call than oneDNN, and reaches more of the core's peak rate.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.kernels import Kernels, activation_number, as_read


def suits(kernels: Kernels, conv: nn.Conv2d, activation: nn.Module | None) -> bool:
    """Tell whether `convolution` supports a convolution and the activation after it."""
    square = len({*conv.kernel_size}) == len({*conv.stride}) == len({*conv.padding}) == 1
    plain = conv.dilation == (1, 1) and conv.groups == 1 and conv.padding_mode == "zeros"
    divisible = conv.out_channels % kernels.lanes == 0
    return square and plain and divisible and activation_number(activation) is not None


def convolution(
    kernels: Kernels, conv: nn.Conv2d, height: int, width: int, activation: nn.Module | None
) -> Callable[[Tensor], Tensor]:
    """Return the function of a convolution and the activation after it.

    Args:
        kernels: For this CPU.
        conv: On the CPU; `suits` must hold for it.
        height: Of the input features.
        width: Of the input features.
        activation: `nn.GELU` or `nn.ReLU`, if any.

    Returns:
        Maps float32[n, c, height, width], channels last, to the output of `conv` and `activation`
        in the same layout, without gradients. It differs from torch by rounding only. Called in
        one thread at a time. Raises ValueError for features of another size or dtype.
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
    """Return weights float32[after, before, k, k] in the order that im2col.c reads."""
    deep = weight.permute(0, 2, 3, 1).flatten(1)
    deep = F.pad(deep, (0, 0, 0, -len(deep) % panel))  # fill the last panel
    return deep.view(-1, panel, deep.shape[1]).transpose(1, 2).contiguous()
