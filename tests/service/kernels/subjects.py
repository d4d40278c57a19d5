"""What the tests of the library in C have in common."""

from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from service.kernels import Kernels

GELU, TANH, RELU = nn.GELU(), nn.GELU(approximate="tanh"), nn.ReLU()


def some(*size: int, seed: int = 0) -> Tensor:
    features = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return features.to(memory_format=torch.channels_last)


def assert_convolves(
    kernels: Kernels,
    way: ModuleType,
    conv: nn.Conv2d,
    activation: nn.Module | None,
    features: Tensor,
    atol: float,
) -> None:
    """Compare with torch's own convolution; twice, and with features of another layout."""
    assert way.suits(kernels, conv, activation)
    convolve = way.convolution(kernels, conv, *features.shape[2:], activation)
    expected = (activation or nn.Identity())(conv(features))
    kept = features.clone()
    actual = convolve(features)
    assert actual.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-5)
    assert torch.equal(features, kept)
    first = actual.clone()
    convolve(-features)
    assert torch.equal(actual, first), "an answer was written over by the next"
    assert torch.equal(convolve(features.contiguous()), first)
    assert convolve(features[:0]).shape == (0, *expected.shape[1:])


def assert_refuses(kernels: Kernels, way: ModuleType, conv: nn.Conv2d, features: Tensor) -> None:
    with pytest.raises(ValueError, match=r"features are torch\.float"):
        way.convolution(kernels, conv, 6, 6, None)(features)


OTHERS = [some(1, 32, 6, 7), some(1, 16, 6, 6), some(1, 32, 6, 6).double()]
"""What a convolution of 32 channels at 6x6 does not take."""
