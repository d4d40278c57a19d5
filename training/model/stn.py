"""Spatial transformer: predicts rotation, scale and shift of a face, and undoes them.

Jaderberg et al. 2015, "Spatial Transformer Networks", arXiv:1506.02025. Deviations: by default the
transform is a similarity with scale, rotation and shift bounded by tanh, because an unbounded
affine transform can leave the face in training and not recover; outside the input its border is
repeated, instead of zeros.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.model.manifest import Transform

_IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


@dataclass(frozen=True)
class TransformBounds:
    """The bounds of a similarity transform.

    Attributes:
        scale: Largest zoom in either direction, as a factor above 1.
        angle_deg: Largest rotation in either direction, in degrees.
        shift: Largest shift in either direction, as a share of the image's side.
    """

    scale: float = 1.3
    angle_deg: float = 45.0
    shift: float = 0.25


class IdentityHead(nn.Module):
    """A linear layer initialised with zeros, so that the transform starts at the identity.

    A separate class, so that an initialisation of all `nn.Linear` layers does not change it. After
    an initialisation of every tensor call `reset_parameters`.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        """Create the layer, all zeros."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def reset_parameters(self) -> None:
        """Set the parameters to zero, and so the transform to the identity."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map features float[n, in] to float[n, out]."""
        return F.linear(features, self.weight, self.bias)


class SpatialTransformer(nn.Module):
    """Straightens each image by a transform that is predicted from it."""

    def __init__(
        self,
        channels: int,
        activation: type[nn.Module],
        transform: Transform = "similarity",
        bounds: TransformBounds | None = None,
    ) -> None:
        """Build the localisation network and its head at identity.

        Args:
            channels: Channels of the images.
            activation: Non-linearity of the localisation network.
            transform: "similarity", bounded by `bounds`, or "affine", six free numbers.
            bounds: Range of a similarity; ignored by "affine".
        """
        super().__init__()
        self.transform = transform
        self.bounds = bounds or TransformBounds()
        layers: list[nn.Module] = [nn.AvgPool2d(2)]  # half the resolution suffices for geometry
        for before, after in ((channels, 16), (16, 32), (32, 64)):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                activation(),
            ]
        # A 3x3 grid keeps positions, which a global mean would lose.
        self.localise = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(3), nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(64 * 9, 64), activation())
        self.head = IdentityHead(64, 4 if transform == "similarity" else 6)

    def reset_parameters(self) -> None:
        """Set the transform to the identity, after an initialisation of every tensor."""
        self.head.reset_parameters()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Straighten images.

        Args:
            images: float[n, c, h, w].

        Returns:
            The straightened images, float[n, c, h, w] in the dtype of `images`, and theta,
            float32[n, 2, 3]: the sampling positions in the input, in coordinates from -1 to 1.
        """
        parameters = self.head(self.hidden(self.localise(images)))
        # In bfloat16, sampling positions would be wrong by up to 0.2 pixels at 48 pixels.
        with torch.autocast(images.device.type, enabled=False):
            theta = self.theta(parameters.float())
            grid = F.affine_grid(theta, list(images.shape), align_corners=False)
            straight = F.grid_sample(
                images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False
            )
        return straight.to(images.dtype), theta

    def theta(self, parameters: Tensor) -> Tensor:
        """Convert the head's output to sampling matrices.

        Args:
            parameters: float32[n, 4] (scale, angle, shift x, shift y before tanh) or
                float32[n, 6] (added to the identity matrix).

        Returns:
            float32[n, 2, 3].
        """
        if self.transform == "affine":
            return identity(parameters) + parameters.view(-1, 2, 3)
        bounded = torch.tanh(parameters)
        scale = torch.exp(bounded[:, 0] * math.log(self.bounds.scale))
        angle = bounded[:, 1] * math.radians(self.bounds.angle_deg)
        shift = bounded[:, 2:] * (2.0 * self.bounds.shift)  # coordinates go from -1 to 1
        cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
        rows = (cos, -sin, shift[:, 0], sin, cos, shift[:, 1])
        return torch.stack(rows, dim=1).view(-1, 2, 3)


def identity(like: Tensor) -> Tensor:
    """Return the identity transform, float32[1, 2, 3], on the device of `like`."""
    return torch.tensor([_IDENTITY], dtype=torch.float32, device=like.device)
