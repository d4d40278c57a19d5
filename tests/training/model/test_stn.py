import math

import pytest
import torch
from torch import nn

from training.model.manifest import NetworkConfig, Transform
from training.model.network import AttentionFER
from training.model.stn import SpatialTransformer, TransformBounds, identity


def images() -> torch.Tensor:
    return torch.rand(3, 1, 48, 48, generator=torch.Generator().manual_seed(0))


def shaken(module: nn.Module) -> None:
    """An initialisation by layer type, as recipes and libraries do."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.normal_(module.weight, std=1.0)
        if module.bias is not None:
            nn.init.normal_(module.bias, std=1.0)


@pytest.mark.parametrize("transform", ["similarity", "affine"])
def test_is_identity_at_initialisation(transform: Transform) -> None:
    stn = SpatialTransformer(1, nn.GELU, transform)
    straight, theta = stn(images())
    assert torch.equal(theta, identity(theta).expand(3, 2, 3))
    torch.testing.assert_close(straight, images(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("transform", ["similarity", "affine"])
def test_stays_identity_after_a_global_initialisation(transform: Transform) -> None:
    network = AttentionFER(NetworkConfig(widths=(8,), depths=(1,), transform=transform))
    network.apply(shaken)
    assert network.stn is not None
    theta = network.eval()(images()).theta
    assert torch.equal(theta, identity(theta).expand(3, 2, 3))


def test_returns_to_identity_after_every_tensor_was_touched() -> None:
    network = AttentionFER(NetworkConfig(widths=(8,), depths=(1,)))
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    moved = network.eval()(images()).theta
    assert not torch.equal(moved, identity(moved).expand(3, 2, 3))
    network.reset_parameters()
    theta = network(images()).theta
    assert torch.equal(theta, identity(theta).expand(3, 2, 3))


def test_similarity_never_leaves_its_bounds() -> None:
    bounds = TransformBounds(scale=1.3, angle_deg=45.0, shift=0.25)
    stn = SpatialTransformer(1, nn.GELU, bounds=bounds)
    extreme = 1e4 * (torch.randint(0, 2, (64, 4)) * 2.0 - 1.0)
    theta = stn.theta(extreme)
    scale = theta[:, :, 0].norm(dim=1)
    angle = torch.rad2deg(torch.atan2(theta[:, 1, 0], theta[:, 0, 0]))
    assert scale.max() <= 1.3 + 1e-5
    assert scale.min() >= 1 / 1.3 - 1e-5
    assert angle.abs().max() <= 45.0 + 1e-3
    assert theta[:, :, 2].abs().max() <= 0.5 + 1e-6


def test_turns_back_a_turned_image() -> None:
    """A quarter of the way to 45 degrees: the sampled image is the input, rotated."""
    stn = SpatialTransformer(1, nn.GELU)
    with torch.no_grad():
        stn.head.bias[1] = math.atanh(0.5)  # half of 45 degrees
    dot = torch.zeros(1, 1, 49, 49)
    dot[0, 0, 24, 40] = 1.0  # 16 pixels right of the centre
    straight, _ = stn(dot)
    y, x = divmod(int(straight.argmax()), 49)
    angle = math.degrees(math.atan2(y - 24, x - 24))
    assert angle == pytest.approx(-22.5, abs=3.0)
    assert math.hypot(y - 24, x - 24) == pytest.approx(16.0, abs=1.0)


def test_repeats_the_border_outside_of_the_image() -> None:
    stn = SpatialTransformer(1, nn.GELU)
    with torch.no_grad():
        stn.head.bias[2] = 1e4  # as far right as it goes
    straight, _ = stn(torch.ones(1, 1, 48, 48))
    torch.testing.assert_close(straight, torch.ones(1, 1, 48, 48))


def test_samples_in_float32_under_autocast() -> None:
    stn = SpatialTransformer(1, nn.GELU)
    with torch.autocast("cpu", torch.bfloat16):
        straight, theta = stn(images())
    assert theta.dtype == torch.float32
    # bfloat16 coordinates would be off by 1e-2 here.
    torch.testing.assert_close(straight, images(), atol=1e-5, rtol=0)
