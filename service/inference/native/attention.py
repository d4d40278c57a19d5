"""A block's end, from its last convolution to its activation, in one pass over each face.

Of torch's it takes eighteen operators, and of a single face most of that time is their beginning.
"""

import ctypes
from collections.abc import Callable
from itertools import chain
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.inference.native import LANES, activation_number
from training.model.attention import ChannelAttention, SpatialAttention
from training.model.network import Block


def suits(block: Block, channels: int) -> bool:
    """Tell whether a block that gives so many channels can end so."""
    return channels % LANES == 0 and activation_number(block.activation) is not None


def ending(
    native: ctypes.CDLL, block: Block, channels: int, height: int, width: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """Pack what follows a block's convolutions.

    Args:
        native: The library.
        block: One that `suits`, on the CPU.
        channels: Of its features.
        height: Likewise.
        width: Likewise.

    Returns:
        Maps features and what came past the block's body, each float32[n, channels, height,
        width] and channels last, to what the block gives; without gradients. To be called from
        one thread at a time.
    """
    number = activation_number(block.activation)
    hidden, weights = _channel_weights(block)
    kernel, bias = _place_weights(block)
    scratch = torch.empty(native.attend_scratch(height, width, channels, hidden))
    packed = (*weights, kernel)

    def attend(features: Tensor, shortcut: Tensor) -> Tensor:
        given = [t.contiguous(memory_format=torch.channels_last) for t in (features, shortcut)]
        faces = len(features)
        for t in given:
            if t.shape != (faces, channels, height, width) or t.dtype != torch.float32:
                raise ValueError(f"features are {t.dtype}{list(t.shape)}")
        out = torch.empty_like(given[0])
        pointers = [t.data_ptr() for t in chain(given, (out, scratch))]
        constants = [None if t is None else t.data_ptr() for t in packed]
        sizes = (faces, height, width, channels, hidden)
        native.attend(*pointers, *sizes, *constants, bias, number)
        return out

    return attend


def _channel_weights(block: Block) -> tuple[int, tuple[Tensor | None, ...]]:
    """Return the hidden units, as attention.c has them, and four tensors; None without."""
    found = [layer for layer in block.body if isinstance(layer, ChannelAttention)]
    if not found:
        return 0, (None, None, None, None)
    first, _, last = cast(tuple[nn.Linear, nn.Module, nn.Linear], tuple(found[0].shared))
    more = -first.out_features % LANES  # units that add nothing
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
