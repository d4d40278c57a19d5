"""The end of a block: attention, the sum with the shortcut and the activation, in one C function.

Torch takes eighteen operators for it. For a single face most of their time is overhead.
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
    """Tell whether `ending` supports a block with this number of output channels."""
    return channels % kernels.lanes == 0 and activation_number(block.activation) is not None


def ending(
    kernels: Kernels, block: Block, channels: int, height: int, width: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function that computes everything after a block's convolutions.

    Args:
        kernels: For this CPU.
        block: On the CPU; `suits` must hold for it.
        channels: Output channels of the block.
        height: Of the block's output.
        width: Of the block's output.

    Returns:
        Maps the output of the block's last convolution and that of its shortcut to the block's
        output. All three are float32[n, channels, height, width], channels last, without
        gradients. Called in one thread at a time. Raises ValueError for features of another size
        or dtype.
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
    """Return the number of hidden units and four tensors for attention.c.

    The tensors are None for a block without channel attention.
    """
    found = [layer for layer in block.body if isinstance(layer, ChannelAttention)]
    if not found:
        return 0, (None, None, None, None)
    first, _, last = cast(tuple[nn.Linear, nn.Module, nn.Linear], tuple(found[0].shared))
    more = -first.out_features % lanes  # fill the last vector with units of zero weight
    return first.out_features + more, (
        F.pad(first.weight.detach().t(), (0, more)).contiguous(),
        F.pad(first.bias.detach(), (0, more)).contiguous(),
        F.pad(last.weight.detach().t(), (0, 0, 0, more)).contiguous(),
        2 * last.bias.detach(),
    )


def _place_weights(block: Block) -> tuple[Tensor | None, float]:
    """Return the kernel float32[2, 7, 7] of spatial attention and its bias.

    They are None and 0 for a block without spatial attention.
    """
    found = [layer.conv for layer in block.body if isinstance(layer, SpatialAttention)]
    if not found:
        return None, 0.0
    bias = found[0].bias
    return found[0].weight.detach().contiguous(), 0.0 if bias is None else float(bias)
