"""Tests of `service.kernels.im2col`, against torch's own convolution."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.kernels import Kernels, im2col
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


def a_convolution(before: int, after: int, kernel: Any, **options: Any) -> nn.Conv2d:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv = nn.Conv2d(before, after, kernel, **options)
    return conv.requires_grad_(False)


@pytest.mark.parametrize("activation", [None, RELU, GELU])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(3, 2, 1), (2, 2, 0), (5, 2, 2), (1, 1, 0), (3, 1, 1), (2, 1, 3)],
)
@pytest.mark.parametrize(
    ("faces", "before", "after", "height", "width"),
    [(1, 1, 64, 48, 48), (3, 64, 128, 24, 24), (2, 20, 48, 7, 9), (30, 3, 32, 5, 5)],
)
def test_it_is_the_convolution(
    kernels: Kernels,
    faces: int,
    before: int,
    after: int,
    height: int,
    width: int,
    kernel: int,
    stride: int,
    padding: int,
    activation: nn.Module | None,
) -> None:
    conv = a_convolution(before, after, kernel, stride=stride, padding=padding)
    assert_convolves(
        kernels, im2col, conv, activation, some(faces, before, height, width), atol=1e-5
    )


def test_without_a_bias(kernels: Kernels) -> None:
    conv = a_convolution(16, 16, 2, bias=False)
    assert_convolves(kernels, im2col, conv, GELU, some(2, 16, 6, 6), atol=1e-5)


@pytest.mark.parametrize("features", OTHERS)
def test_other_features_are_refused(kernels: Kernels, features: Tensor) -> None:
    assert_refuses(kernels, im2col, a_convolution(32, 16, 2), features)


@pytest.mark.parametrize(
    ("conv", "activation"),
    [
        (a_convolution(16, 16, (3, 5)), None),
        (a_convolution(16, 16, 3, stride=(1, 2)), None),
        (a_convolution(16, 16, 3, padding=(1, 0)), None),
        (a_convolution(16, 16, 3, padding="same"), None),
        (a_convolution(16, 16, 3, dilation=2), None),
        (a_convolution(16, 16, 3, groups=2), None),
        (a_convolution(16, 16, 3, padding=1, padding_mode="reflect"), None),
        (a_convolution(16, 12, 3), None),
        (a_convolution(16, 16, 3), TANH),
    ],
)
def test_what_does_not_suit(
    kernels: Kernels, conv: nn.Conv2d, activation: nn.Module | None
) -> None:
    assert not im2col.suits(kernels, conv, activation)
