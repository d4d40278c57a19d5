"""Convolutions with 3x3 kernels by Winograd's minimal filtering.

oneDNN already multiplies at the core's peak rate. This algorithm needs fewer multiplications.
After Lavin & Gray 2015, arXiv:1509.09308.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from service.kernels import Kernels, activation_number, as_read

# Each row evaluates a kernel of three weights at one point: 0, 1, -1, infinity, 2 and -2. Factors
# are those for tiles of four outputs a side; for smaller tiles winograd.c scales the pixels.
_KERNEL_AT = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [0, 0, 1],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
]
_LARGEST_TILES = (3, 4)


def suits(kernels: Kernels, conv: nn.Conv2d, activation: nn.Module | None) -> bool:
    """Tell whether `convolution` supports a convolution and the activation after it."""
    plain = (
        conv.kernel_size == (3, 3)
        and conv.stride == conv.padding == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
    )
    divisible = conv.in_channels % kernels.lanes == conv.out_channels % kernels.panel == 0
    return plain and divisible and activation_number(activation) is not None


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
        in the same layout, without gradients. Its relative error is about 1e-5. Called in one
        thread at a time. Raises ValueError for features of another size or dtype.
    """
    number, largest = activation_number(activation), _largest_tile(height, width)
    before, after = conv.in_channels, conv.out_channels
    weight = _packed(conv.weight.detach(), largest, kernels.panel)
    bias = torch.zeros(after) if conv.bias is None else conv.bias.detach().contiguous()
    scratch = torch.empty(kernels.library.winograd_scratch(largest, before, after))

    def convolve(features: Tensor) -> Tensor:
        features, faces = as_read(features, before, height, width), len(features)
        out = torch.empty((faces, after, height, width), memory_format=torch.channels_last)
        tensors = (features, weight, bias, out, scratch)
        pointers = [tensor.data_ptr() for tensor in tensors]
        kernels.library.winograd(largest, *pointers, faces, height, width, before, after, number)
        return out

    return convolve


def _largest_tile(height: int, width: int) -> int:
    """Return the outputs a side of the tile that takes fewest products for many faces.

    For few faces winograd.c takes a smaller tile where that is faster.
    """

    def products(m: int) -> int:
        return -(-height // m) * -(-width // m) * (m + 2) ** 2

    return min(_LARGEST_TILES, key=products)


def _packed(weight: Tensor, largest: int, panel: int) -> Tensor:
    """Return weights float32[after, before, 3, 3] at the points, as winograd.c reads them."""
    at = torch.tensor(_KERNEL_AT[: largest + 2], dtype=torch.float64)
    points = torch.einsum("ai,ocij,bj->aboc", at, weight.double(), at).float()
    after, before = weight.shape[:2]
    panels = points.reshape(len(at) ** 2, after // panel, panel, before)
    return panels.transpose(2, 3).contiguous()
