"""Convolutions of 3x3 by Winograd's minimal filtering, in a third of the time.

oneDNN computes as fast as a core can multiply; this way multiplies less. After Lavin & Gray 2015,
arXiv:1509.09308.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from service.kernels import Kernels, activation_number, as_read

# From a kernel's three weights to the points at which m outputs are multiplied.
_KERNEL_AT = {
    3: [
        [1 / 2, 0, 0],
        [-1 / 2, -1 / 2, -1 / 2],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 6, 1 / 3, 2 / 3],
        [0, 0, 1],
    ],
    4: [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
}


def suits(kernels: Kernels, conv: nn.Conv2d, activation: nn.Module | None) -> bool:
    """Tell whether a convolution, with the activation behind it, can be computed so."""
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
    """Pack a convolution and the activation behind it.

    Args:
        kernels: For this CPU.
        conv: One that `suits`, on the CPU.
        height: Of the features that it will be given.
        width: Likewise.
        activation: `nn.GELU` or `nn.ReLU`, if any.

    Returns:
        Maps features float32[n, c, height, width], channels last, to such; without gradients.
        Exact to about 1e-5 of their size. To be called from one thread at a time; raises
        ValueError for features of another size or dtype.
    """
    number, tile = activation_number(activation), _tile(height, width)
    before, after = conv.in_channels, conv.out_channels
    weight = _packed(conv.weight.detach(), tile, kernels.panel)
    bias = torch.zeros(after) if conv.bias is None else conv.bias.detach().contiguous()
    scratch = torch.empty(kernels.library.winograd_scratch(tile, before, after))

    def convolve(features: Tensor) -> Tensor:
        features, faces = as_read(features, before, height, width), len(features)
        out = torch.empty((faces, after, height, width), memory_format=torch.channels_last)
        tensors = (features, weight, bias, out, scratch)
        pointers = [tensor.data_ptr() for tensor in tensors]
        kernels.library.winograd(tile, *pointers, faces, height, width, before, after, number)
        return out

    return convolve


def _tile(height: int, width: int) -> int:
    """Return how many outputs a side of a tile has, so that fewest products are taken."""

    def products(m: int) -> int:
        return -(-height // m) * -(-width // m) * (m + 2) ** 2

    return min(_KERNEL_AT, key=products)


def _packed(weight: Tensor, tile: int, panel: int) -> Tensor:
    """Return weights float32[after, before, 3, 3] at the points, as winograd.c reads them."""
    at = torch.tensor(_KERNEL_AT[tile], dtype=torch.float64)
    points = torch.einsum("ai,ocij,bj->aboc", at, weight.double(), at).float()
    after, before = weight.shape[:2]
    panels = points.reshape(len(at) ** 2, after // panel, panel, before)
    return panels.transpose(2, 3).contiguous()
