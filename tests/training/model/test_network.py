import itertools

import pytest
import torch
from torch import nn

from training.config import RECIPES
from training.model.attention import ChannelAttention, SpatialAttention
from training.model.manifest import InputSpec, NetworkConfig
from training.model.network import AttentionFER, count_multiply_adds, count_parameters
from training.model.stn import SpatialTransformer

SWITCHES = list(itertools.product((True, False), (True, False), (True, False), ("gelu", "relu")))


def small(switches: tuple[bool, bool, bool, str]) -> AttentionFER:
    stn, channel, spatial, activation = switches
    torch.manual_seed(0)
    return AttentionFER(
        NetworkConfig(
            widths=(8, 16),
            depths=(1, 2),
            stn=stn,
            channel_attention=channel,
            spatial_attention=spatial,
            activation=activation,  # type: ignore[arg-type]
        )
    )


@pytest.mark.parametrize("switches", SWITCHES)
def test_gradients_reach_every_parameter(switches: tuple[bool, bool, bool, str]) -> None:
    network = small(switches)
    if network.stn is not None:  # at zero, the head lets no gradient through to what is below it
        nn.init.normal_(network.stn.head.weight, std=0.1)
    logits, _ = network(torch.randn(4, 1, 48, 48))
    torch.nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    dead = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


@pytest.mark.parametrize("switches", SWITCHES)
def test_switches_build_what_they_name(switches: tuple[bool, bool, bool, str]) -> None:
    stn, channel, spatial, activation = switches
    modules = list(small(switches).modules())
    blocks = 3
    assert sum(isinstance(m, SpatialTransformer) for m in modules) == int(stn)
    assert sum(isinstance(m, ChannelAttention) for m in modules) == blocks * channel
    assert sum(isinstance(m, SpatialAttention) for m in modules) == blocks * spatial
    assert any(isinstance(m, nn.GELU) for m in modules) == (activation == "gelu")
    assert any(isinstance(m, nn.ReLU) for m in modules) == (activation == "relu")


def test_output_shapes() -> None:
    out = small((True, True, True, "gelu")).eval()(torch.zeros(5, 1, 48, 48))
    assert out.logits.shape == (5, 7)
    assert out.theta.shape == (5, 2, 3)
    assert small((False, True, True, "gelu")).eval()(torch.zeros(5, 1, 48, 48)).theta is None


def test_a_face_does_not_see_its_neighbours() -> None:
    network = small((True, True, True, "gelu")).eval()
    images = torch.randn(6, 1, 48, 48)
    together = network(images).logits
    alone = torch.cat([network(image[None]).logits for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_the_shipped_network_is_within_its_budget() -> None:
    network = AttentionFER(RECIPES["fer2013"].network)
    assert count_parameters(network) <= 6_000_000
    assert count_multiply_adds(network, InputSpec()) <= 350_000_000


def test_multiply_adds_are_those_of_the_convolutions() -> None:
    config = NetworkConfig(
        widths=(8,), depths=(1,), stn=False, channel_attention=False, spatial_attention=False
    )
    expected = 24 * 24 * 8 * (25 + 2 * 9 * 8) + 8 * 7
    assert count_multiply_adds(AttentionFER(config), InputSpec()) == expected


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"classes": 1}, "classes"),
        ({"widths": (8,), "depths": (1, 1)}, "widths and depths"),
        ({"widths": (), "depths": ()}, "widths and depths"),
        ({"widths": (0,), "depths": (1,)}, "widths"),
        ({"widths": (8,), "depths": (65,)}, "64 blocks"),
        ({"activation": "tanh"}, "activation"),
        ({"transform": "free"}, "transform"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_refuses_what_cannot_be_built(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        NetworkConfig(**wrong)  # type: ignore[arg-type]
