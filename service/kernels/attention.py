"""A block's end, from its last convolution to its activation, in one pass over each face.

Of torch's it takes eighteen operators, and of a single face most of that time is their beginning.
"""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.kernels import Kernels, activation_number, as_read
from training.model.attention import ChannelAttention, SpatialAttention
from training.model.network import Block


def suits(kernels: Kernels, block: Block, channels: int) -> bool:
    """Tell whether a block that gives so many channels can end so."""
    return channels % kernels.lanes == 0 and activation_number(block.activation) is not None


def ending(
    kernels: Kernels, block: Block, channels: int, height: int, width: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """Pack what follows a block's convolutions.

    Args:
        kernels: For this CPU.
        block: One that `suits`, on the CPU.
        channels: Of its features.
        height: Likewise.
        width: Likewise.

    Returns:
        Maps features and what came past the block's body, each float32[n, channels, height,
        width] and channels last, to what the block gives; without gradients. To be called from
        one thread at a time; raises ValueError for features of another size or dtype.
    """
    number = activation_number(block.activation)
    hidden, weights = _channel_weights(block, kernels.lanes)
    kernel, bias = _place_weights(block)
    scratch = torch.empty(kernels.library.attend_scratch(height, width, channels, hidden))
    packed = (*weights, kernel)

    def attend(features: Tensor, shortcut: Tensor) -> Tensor:
        given = [as_read(t, channels, height, width) for t in (features, shortcut)]
        if len(features) != len(shortcut):
            raise ValueError(f"features are of {len(features)} faces and {len(shortcut)}")
        out = torch.empty_like(given[0])
        pointers = [t.data_ptr() for t in (*given, out, scratch)]
        constants = [None if t is None else t.data_ptr() for t in packed]
        sizes = (len(features), height, width, channels, hidden)
        kernels.library.attend(*pointers, *sizes, *constants, bias, number)
        return out

    return attend


def _channel_weights(block: Block, lanes: int) -> tuple[int, tuple[Tensor | None, ...]]:
    """Return the hidden units, as attention.c has them, and four tensors; None without."""
    found = [layer for layer in block.body if isinstance(layer, ChannelAttention)]
    if not found:
        return 0, (None, None, None, None)
    first, _, last = cast(tuple[nn.Linear, nn.Module, nn.Linear], tuple(found[0].shared))
    more = -first.out_features % lanes  # units that add nothing
    return first.out_features + more, (
        F.pad(first.weight.detach().t(), (0, more)).contiguous(),
        F.pad(first.bias.detach(), (0, more)).contiguous(),
        F.pad(last.weight.detach().t(), (0, 0, 0, more)).contiguous(),
        2 * last.bias.detach(),
    )


def _place_weights(block: Block) -> tuple[Tensor | None, float]:
    """Return the kernel float[2, 7, 7] and its bias; None and 0 without."""
    found = [layer.conv for layer in block.body if isinstance(layer, SpatialAttention)]
    if not found:
        return None, 0.0
    bias = found[0].bias
    return found[0].weight.detach().contiguous(), 0.0 if bias is None else float(bias)
