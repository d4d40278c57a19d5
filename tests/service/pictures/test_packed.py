"""Packed convolutions beside torch's own."""

import pytest
import torch

from service.pictures import packed
from service.pictures.packed import Convolution, pack


@pytest.fixture(params=["float32", "bfloat16"])
def tolerance(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> float:
    wide = request.param == "float32"
    if not wide and not packed.multiplies_bfloat16():
        pytest.skip("this CPU has no bfloat16")
    monkeypatch.setattr(packed, "multiplies_bfloat16", lambda: not wide)
    return 1e-4 if wide else 3e-2


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize(
    ("before", "after", "kernel", "stride", "groups"),
    [(3, 8, 3, 2, 1), (16, 16, 3, 1, 16), (16, 16, 3, 2, 16), (16, 32, 1, 1, 1), (64, 32, 3, 1, 1)],
)
def test_a_packed_convolution_is_the_plain_one_at_any_size(
    before: int, after: int, kernel: int, stride: int, groups: int, slope: float, tolerance: float
) -> None:
    torch.manual_seed(0)
    plain = Convolution(before, after, kernel, slope=slope, stride=stride, groups=groups)
    torch.nn.init.kaiming_normal_(plain.convolve.weight)
    assert plain.convolve.bias is not None
    torch.nn.init.normal_(plain.convolve.bias)
    network = torch.nn.Sequential(plain).requires_grad_(False)
    fast = pack(network)
    for size in ((48, 64), (13, 21), (48, 64), (1, 1), *((n, 9) for n in range(2, 12))):
        features = torch.randn(2, before, *size).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected, given = network(features), fast(features).float()
        assert given.shape == expected.shape
        assert (given - expected).abs().max() <= tolerance * (1 + expected.abs().max())
