"""Tests of `service.kernels.winograd`, against torch's own convolution."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.kernels import Kernels, winograd
from tests.service.kernels.subjects import (
    GELU,
    OTHERS,
    RELU,
    TANH,
    assert_convolves,
    assert_refuses,
    some,
)

pytestmark = pytest.mark.cpu


def a_convolution(before: int, after: int, **options: Any) -> nn.Conv2d:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv = nn.Conv2d(before, after, options.pop("kernel", 3), padding=1, **options)
    return conv.requires_grad_(False)


@pytest.mark.parametrize("activation", [None, RELU, GELU])
@pytest.mark.parametrize(
    ("faces", "before", "after", "height", "width"),
    [
        (1, 64, 64, 24, 24),
        (2, 128, 128, 12, 12),
        (3, 256, 256, 6, 6),  # tiles of three a side
        (1, 256, 256, 6, 6),  # of two a side, by the weights of three
        (1, 32, 32, 4, 4),  # of two, by the weights of four
        (1, 32, 32, 8, 7),  # of three, by the weights of four
        (1, 16, 32, 1, 1),
        (5, 48, 96, 5, 7),  # tiles over the edge
        (13, 16, 32, 3, 2),  # more faces than are taken at once, of a tile each
        (1, 80, 32, 9, 14),
    ],
)
def test_it_is_the_convolution(
    kernels: Kernels,
    faces: int,
    before: int,
    after: int,
    height: int,
    width: int,
    activation: nn.Module | None,
) -> None:
    conv, features = a_convolution(before, after), some(faces, before, height, width)
    assert_convolves(kernels, winograd, conv, activation, features, atol=3e-5)


def test_without_a_bias(kernels: Kernels) -> None:
    conv = a_convolution(32, 32, bias=False)
    assert_convolves(kernels, winograd, conv, GELU, some(2, 32, 6, 6), atol=3e-5)


@pytest.mark.parametrize("features", OTHERS)
def test_other_features_are_refused(kernels: Kernels, features: Tensor) -> None:
    assert_refuses(kernels, winograd, a_convolution(32, 32), features)


def test_gelu_is_near_everywhere(kernels: Kernels) -> None:
    conv = a_convolution(16, 32)
    conv.weight.zero_()
    conv.weight[:16, :, 1, 1] = torch.eye(16)
    assert conv.bias is not None
    conv.bias.zero_()
    x = torch.linspace(-30, 30, 3 * 16 * 36).view(3, 16, 6, 6)
    actual = winograd.convolution(kernels, conv, 6, 6, GELU)(x)[:, :16]
    torch.testing.assert_close(actual, F.gelu(x), atol=2e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ("conv", "activation"),
    [
        (a_convolution(32, 32, stride=2), None),
        (a_convolution(32, 32, dilation=2), None),
        (a_convolution(32, 32, groups=2), None),
        (a_convolution(32, 32, kernel=5), None),
        (a_convolution(32, 32, padding_mode="reflect"), None),
        (a_convolution(12, 32), None),
        (a_convolution(32, 24), None),
        (a_convolution(32, 32), TANH),
        (a_convolution(32, 32), nn.SiLU()),
    ],
)
def test_what_does_not_suit(
    kernels: Kernels, conv: nn.Conv2d, activation: nn.Module | None
) -> None:
    assert not winograd.suits(kernels, conv, activation)
