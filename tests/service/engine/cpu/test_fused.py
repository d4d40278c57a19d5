"""Tests of `service.engine.cpu.fused`."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from service.engine.cpu.fused import (
    can_fuse,
    fuse,
    multiplies_bfloat16,
    shapes_of,
    straightener,
)
from service.engine.cpu.kernels import library
from service.engine.torch_engine import fold_batch_norm
from tests.service.engine.test_torch_engine import build_checkpoint
from training.model.manifest import InputSpec, NetworkConfig
from training.model.network import AttentionFER

pytestmark = pytest.mark.skipif(not can_fuse(), reason="this torch has no oneDNN")
bfloat16 = pytest.mark.skipif(not multiplies_bfloat16(), reason="this CPU has no bfloat16")


@pytest.fixture(params=[True, False], ids=["native", "torch"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once with the library in C and once without it."""
    if not request.param:
        monkeypatch.setattr("service.engine.cpu.fused.library", lambda: None)
    elif library() is None:
        pytest.skip("libkernels.so is not compiled (make setup), or not for this CPU")


def folded(**config: Any) -> AttentionFER:
    network = build_checkpoint(NetworkConfig(**config)).network
    fold_batch_norm(network)
    return network


def some_images(count: int, height: int = 48, width: int = 48) -> torch.Tensor:
    return torch.randn(count, 1, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("stn", "channel", "spatial", "activation"),
    list(itertools.product((True, False), (True, False), (True, False), ("gelu", "relu"))),
)
def test_float32_changes_nothing_but_rounding(
    stn: bool, channel: bool, spatial: bool, activation: Any, either_way: None
) -> None:
    network = folded(
        widths=(8, 16),
        depths=(1, 2),
        stn=stn,
        channel_attention=channel,
        spatial_attention=spatial,
        activation=activation,
    )
    images = some_images(3)
    with torch.inference_mode():
        expected = network(images).logits
        actual = fuse(network, InputSpec(), torch.float32)(images)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_batch_of_other_sizes(count: int, either_way: None) -> None:
    network = folded(widths=(8, 12, 20), depths=(1, 1, 1), transform="affine", classes=8)
    images, spec = some_images(count, 32, 40), InputSpec(32, 40)
    with torch.inference_mode():
        expected, actual = network(images).logits, fuse(network, spec, torch.float32)(images)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_images_are_straightened_as_the_network_does() -> None:
    network = folded(widths=(8,), depths=(1,))
    # Smooth, so that what differs is where pixels are read, as little as it may.
    images = F.interpolate(some_images(3, 4, 5), (32, 40), mode="bilinear")
    spec = InputSpec(32, 40)
    assert network.stn is not None
    network.stn.head.weight.data.normal_(std=1.0)
    with torch.inference_mode():
        expected, theta = network.stn(images)
        actual = straightener(network.stn, spec, shapes_of(network, spec))(images)
    assert (theta - theta[0]).abs().max() > 0.01, "all are turned alike"
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@bfloat16
def test_bfloat16_is_near(either_way: None) -> None:
    network = folded(widths=(32, 64), depths=(1, 2))
    images = some_images(16)
    with torch.inference_mode():
        expected = network(images).logits
        actual = fuse(network, InputSpec(), torch.bfloat16)(images)
    assert actual.dtype == torch.float32
    assert 0 < (actual.softmax(1) - expected.softmax(1)).abs().max() < 0.01


def test_the_network_stays_as_it_was() -> None:
    network = folded(widths=(8,), depths=(1,))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.inference_mode():
        fuse(network, InputSpec(), torch.float32)(some_images(1))
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_answer_is_not_overwritten() -> None:
    fused = fuse(folded(widths=(8,), depths=(1,)), InputSpec(), torch.float32)
    with torch.inference_mode():
        first = fused(some_images(2))
        before = first.clone()
        fused(-some_images(2))
    assert torch.equal(first, before)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"avx512_bf16": False, "avx512_f": True}, False),
        ({"architecture": "aarch64", "bf16": True}, False),  # not measured there
    ],
)
def test_only_measured_instructions_count(
    capabilities: dict[str, Any], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert multiplies_bfloat16() is expected


def test_on_a_wider_cpu_onednn_does_what_it_does_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engine.cpu.fused.computes_wider", lambda: True)
    network, images = folded(widths=(16, 32), depths=(1, 1)), some_images(2)
    with torch.inference_mode():
        expected, actual = network(images).logits, fuse(network, InputSpec(), torch.float32)(images)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
