import torch
from torch import nn

from training.model.attention import MIN_HIDDEN, ChannelAttention, SpatialAttention


def features() -> torch.Tensor:
    return torch.randn(2, 32, 6, 6, generator=torch.Generator().manual_seed(0))


def test_channel_weights_are_one_number_a_channel_from_0_to_1() -> None:
    weights = ChannelAttention(32, nn.GELU).weights(features())
    assert weights.shape == (2, 32, 1, 1)
    assert ((weights > 0) & (weights < 1)).all()


def test_spatial_weights_are_one_number_a_place_from_0_to_1() -> None:
    weights = SpatialAttention().weights(features())
    assert weights.shape == (2, 1, 6, 6)
    assert ((weights > 0) & (weights < 1)).all()


def test_channel_attention_is_cbam_by_its_definition() -> None:
    """sigmoid(MLP(mean) + MLP(max)), equation 2 of the paper."""
    attention = ChannelAttention(32, nn.GELU)
    x = features()
    expected = torch.sigmoid(attention.shared(x.mean((2, 3))) + attention.shared(x.amax((2, 3))))
    torch.testing.assert_close(attention(x), x * expected[:, :, None, None])


def test_spatial_attention_is_cbam_by_its_definition() -> None:
    """sigmoid(conv7x7([mean; max])), equation 3 of the paper."""
    attention = SpatialAttention()
    x = features()
    pooled = torch.stack((x.mean(1), x.amax(1)), dim=1)
    torch.testing.assert_close(attention(x), x * torch.sigmoid(attention.conv(pooled)))


def test_narrow_blocks_keep_a_hidden_layer() -> None:
    assert ChannelAttention(32, nn.GELU).shared[0].out_features == MIN_HIDDEN
    assert ChannelAttention(512, nn.GELU).shared[0].out_features == 512 // 16
