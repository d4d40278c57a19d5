"""Tests of `service.engine.cpu.fused`."""

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from service.engine.cpu.fused import create_straightener, find_input_sizes, fuse
from service.engine.torch_engine import fold_batch_norm
from service.kernels import Kernels
from tests.service.engine.test_torch_engine import build_checkpoint
from training.model.manifest import InputSpec, NetworkConfig
from training.model.network import AttentionFER

pytestmark = pytest.mark.cpu


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
@pytest.mark.parametrize("widths", [(8, 16), (32, 64)])
def test_it_changes_nothing_but_rounding(
    kernels: Kernels,
    widths: tuple[int, ...],
    stn: bool,
    channel: bool,
    spatial: bool,
    activation: Any,
) -> None:
    network = folded(
        widths=widths,
        depths=(1, 2),
        stn=stn,
        channel_attention=channel,
        spatial_attention=spatial,
        activation=activation,
    )
    images = some_images(3)
    with torch.inference_mode():
        expected = network(images).logits
        actual = fuse(kernels, network, InputSpec())(images)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_batch_of_other_sizes(kernels: Kernels, count: int) -> None:
    # None of the kernels takes channels such as these: torch's modules do.
    network = folded(widths=(8, 12, 20), depths=(1, 1, 1), transform="affine", classes=8)
    images, spec = some_images(count, 32, 40), InputSpec(32, 40)
    with torch.inference_mode():
        expected, actual = network(images).logits, fuse(kernels, network, spec)(images)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_images_are_straightened_as_the_network_does(kernels: Kernels) -> None:
    network = folded(widths=(8,), depths=(1,))
    # Smooth, so that what differs is where pixels are read, as little as it may.
    images = F.interpolate(some_images(3, 4, 5), (32, 40), mode="bilinear")
    spec = InputSpec(32, 40)
    assert network.stn is not None
    network.stn.head.weight.data.normal_(std=1.0)
    with torch.inference_mode():
        expected, theta = network.stn(images)
        actual = create_straightener(kernels, network.stn, spec, find_input_sizes(network, spec))(
            images
        )
    assert (theta - theta[0]).abs().max() > 0.01, "all are turned alike"
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_the_network_stays_as_it_was(kernels: Kernels) -> None:
    network = folded(widths=(8,), depths=(1,))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.inference_mode():
        fuse(kernels, network, InputSpec())(some_images(1))
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("widths", [(8,), (32,)])
def test_the_answer_is_not_overwritten(kernels: Kernels, widths: tuple[int, ...]) -> None:
    fused = fuse(kernels, folded(widths=widths, depths=(1,)), InputSpec())
    with torch.inference_mode():
        first = fused(some_images(2))
        before = first.clone()
        fused(-some_images(2))
    assert torch.equal(first, before)
