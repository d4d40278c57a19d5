"""Channel and spatial attention.

Woo et al. 2018, "CBAM: Convolutional Block Attention Module", arXiv:1807.06521: both from
average- and max-pooled descriptors, channel before spatial. Deviations: the hidden layer of
channel attention has at least `MIN_HIDDEN` units (with a reduction of 16 a narrow block would have
two or three); no batch norm after the spatial convolution.
"""

import torch
from torch import Tensor, nn

REDUCTION = 16
MIN_HIDDEN = 8
SPATIAL_KERNEL = 7


class ChannelAttention(nn.Module):
    """Weights each channel by a factor from 0 to 1, computed from its mean and maximum."""

    def __init__(self, channels: int, activation: type[nn.Module]) -> None:
        """Build the shared two-layer network for `channels` channels."""
        super().__init__()
        hidden = max(channels // REDUCTION, MIN_HIDDEN)
        self.shared = nn.Sequential(
            nn.Linear(channels, hidden), activation(), nn.Linear(hidden, channels)
        )

    def weights(self, features: Tensor) -> Tensor:
        """Return the weights, float[n, c, 1, 1], 0 to 1, of features float[n, c, h, w]."""
        # `max`, not `amax`: its gradient goes to one position, ten times as fast on a CPU.
        mean, maximum = features.mean(dim=(2, 3)), features.flatten(2).max(dim=2).values
        # The layers are shared, so both descriptors form one batch.
        descriptors = self.shared(torch.cat((mean, maximum)))
        return torch.sigmoid(sum(descriptors.chunk(2)))[:, :, None, None]

    def forward(self, features: Tensor) -> Tensor:
        """Weight the channels of features float[n, c, h, w]; returns the same shape."""
        return features * self.weights(features)


class SpatialAttention(nn.Module):
    """Weights each position by a factor from 0 to 1, from mean and maximum over channels."""

    def __init__(self) -> None:
        """Create the convolution."""
        super().__init__()
        self.conv = nn.Conv2d(2, 1, SPATIAL_KERNEL, padding=SPATIAL_KERNEL // 2)

    def weights(self, features: Tensor) -> Tensor:
        """Return the map, float[n, 1, h, w], 0 to 1, of features float[n, c, h, w]."""
        mean = features.mean(dim=1, keepdim=True)
        maximum = features.max(dim=1, keepdim=True).values
        return torch.sigmoid(self.conv(torch.cat((mean, maximum), dim=1)))

    def forward(self, features: Tensor) -> Tensor:
        """Weight the positions of features float[n, c, h, w]; returns the same shape."""
        return features * self.weights(features)
