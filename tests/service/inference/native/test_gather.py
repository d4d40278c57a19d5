"""Tests of `service.inference.native.gather`, against torch's own convolution."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.inference.native import gather, library
from tests.service.inference.native.compiled import compiled

GELU, TANH, RELU = nn.GELU(), nn.GELU(approximate="tanh"), nn.ReLU()


def some(*size: int) -> Tensor:
    features = torch.randn(size, generator=torch.Generator().manual_seed(sum(size)))
    return features.to(memory_format=torch.channels_last)


def a_convolution(before: int, after: int, kernel: Any, **options: Any) -> nn.Conv2d:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv = nn.Conv2d(before, after, kernel, **options)
    return conv.requires_grad_(False)


@compiled
@pytest.mark.parametrize("activation", [None, RELU, GELU])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 2, 1), (2, 2, 0), (5, 2, 2), (1, 1, 0), (3, 1, 1)]
)
@pytest.mark.parametrize(
    ("faces", "before", "after", "height", "width"),
    [(1, 1, 64, 48, 48), (3, 64, 128, 24, 24), (2, 20, 16, 7, 9), (30, 3, 32, 5, 5)],
)
def test_it_is_the_convolution(
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
    features, native = some(faces, before, height, width), library()
    assert native is not None
    assert gather.suits(conv, activation)
    kept = features.clone()
    actual = gather.convolution(native, conv, height, width, activation)(features)
    expected = (activation or nn.Identity())(conv(features))
    assert actual.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(features, kept)


@compiled
def test_every_answer_is_its_own_and_features_of_any_layout_do() -> None:
    conv, native = a_convolution(16, 16, 2, bias=False), library()
    assert native is not None
    convolve = gather.convolution(native, conv, 6, 6, None)
    first = convolve(some(2, 16, 6, 6))
    before = first.clone()
    torch.testing.assert_close(convolve(some(2, 16, 6, 6).mul(-1).contiguous()), -before)
    assert torch.equal(first, before)
    assert convolve(torch.empty(0, 16, 6, 6)).shape == (0, 16, 5, 5)


@compiled
@pytest.mark.parametrize(
    "features", [some(1, 16, 6, 7), some(1, 8, 6, 6), some(1, 16, 6, 6).double()]
)
def test_other_features_are_refused(features: Tensor) -> None:
    native = library()
    assert native is not None
    convolve = gather.convolution(native, a_convolution(16, 16, 2), 6, 6, None)
    with pytest.raises(ValueError, match=r"features are torch\.float"):
        convolve(features)


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
        (a_convolution(16, 24, 3), None),
        (a_convolution(16, 16, 3), TANH),
    ],
)
def test_what_does_not_suit(conv: nn.Conv2d, activation: nn.Module | None) -> None:
    assert not gather.suits(conv, activation)
