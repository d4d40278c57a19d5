"""Tests of `service.kernels.attention`, against the block that it ends."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.kernels import Kernels, attention
from tests.service.kernels.subjects import some
from training.model.attention import ChannelAttention, SpatialAttention
from training.model.manifest import NetworkConfig
from training.model.network import Block

pytestmark = pytest.mark.cpu


def a_block(channels: int, **config: Any) -> Block:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        block = Block(channels, channels, 1, NetworkConfig(**config))
    for layer in block.modules():  # as far from 0.5 as attention gets
        if isinstance(layer, nn.Linear) or (
            isinstance(layer, nn.Conv2d) and layer.bias is not None
        ):
            layer.weight.data *= 3
    return block.eval().requires_grad_(False)


def expected(block: Block, features: Tensor, shortcut: Tensor) -> Tensor:
    for layer in block.body:
        if isinstance(layer, ChannelAttention | SpatialAttention):
            features = layer(features)
    out: Tensor = block.activation(features + shortcut)
    return out


@pytest.mark.parametrize(
    ("channel", "spatial", "activation"),
    list(itertools.product((True, False), (True, False), ("gelu", "relu"))),
)
@pytest.mark.parametrize(
    ("faces", "channels", "height", "width"),
    [(1, 64, 24, 24), (2, 128, 12, 12), (3, 256, 6, 6), (2, 208, 5, 9), (1, 16, 1, 1)],
)
def test_it_is_the_blocks_end(
    kernels: Kernels,
    channel: bool,
    spatial: bool,
    activation: Any,
    faces: int,
    channels: int,
    height: int,
    width: int,
) -> None:
    block = a_block(
        channels, channel_attention=channel, spatial_attention=spatial, activation=activation
    )
    size = (faces, channels, height, width)
    features, shortcut = some(*size), some(*size, seed=1)
    assert attention.suits(kernels, block, channels)
    end = attention.ending(kernels, block, channels, height, width)
    kept = features.clone(), shortcut.clone()
    for _ in range(2):  # what it works in is used again
        actual = end(features, shortcut)
        assert actual.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(
            actual, expected(block, features, shortcut), atol=1e-5, rtol=1e-5
        )
        features, shortcut = -features, -shortcut
    assert torch.equal(features, kept[0])
    assert torch.equal(shortcut, kept[1])


@pytest.mark.parametrize(
    "wrong", [some(1, 16, 6, 7), some(2, 16, 6, 6), some(1, 16, 6, 6).double()]
)
def test_other_features_are_refused(kernels: Kernels, wrong: Tensor) -> None:
    end = attention.ending(kernels, a_block(16), 16, 6, 6)
    with pytest.raises(ValueError, match="features are"):
        end(some(1, 16, 6, 6), wrong)


def test_what_does_not_suit(kernels: Kernels) -> None:
    assert not attention.suits(kernels, a_block(12), 12)
    block = a_block(16)
    block.activation = nn.SiLU()
    assert not attention.suits(kernels, block, 16)
