"""Augmentation of faces: batched tensor operations, on the device of the faces.

Uses torch's global generators, which the sampler seeds at every step.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from training.config import AugmentConfig


def augment(images: Tensor, config: AugmentConfig) -> Tensor:
    """Augment each face independently: geometry, resolution, grey levels, an erased rectangle.

    Args:
        images: float32[n, 1, h, w], normalised.
        config: How strongly.

    Returns:
        float32[n, 1, h, w].
    """
    images = _move(images, config)
    n, device = len(images), images.device
    if config.resolution > 0:
        images = _coarsen(images, config)
    if config.gamma > 0:
        images = _change_gamma(images, config.gamma)
    contrast = 1.0 + config.contrast * _symmetric(n, device)
    brightness = config.brightness * _symmetric(n, device)
    images = images * contrast.view(n, 1, 1, 1) + brightness.view(n, 1, 1, 1)
    if config.noise > 0:
        deviation = torch.rand(n, 1, 1, 1, device=device) * config.noise
        images = images + deviation * torch.randn_like(images)
    return images.masked_fill(_rectangles(images, config), 0.0)


def flip(images: Tensor, probability: float) -> Tensor:
    """Mirror faces float[n, c, h, w] left to right, each with this probability."""
    chosen = torch.rand(len(images), device=images.device) < probability
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(-1), images)


def mixup(images: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Blend every face and its target with another of the batch.

    Zhang et al. 2017, arXiv:1710.09412. Deviation: a proportion for each face, not one for
    the batch.

    Args:
        images: float32[n, 1, h, w].
        targets: float32[n, classes], rows that sum to 1.
        alpha: Parameter of the Beta distribution, above 0.

    Returns:
        Images and targets of the same shapes.
    """
    n, device = len(images), images.device
    concentration = torch.full((n, 1), alpha, device=device)
    share = torch.distributions.Beta(concentration, concentration).sample()
    other = torch.randperm(n, device=device)
    images = torch.lerp(images[other], images, share.view(n, 1, 1, 1))
    return images, torch.lerp(targets[other], targets, share)


def _move(images: Tensor, config: AugmentConfig) -> Tensor:
    n, device = len(images), images.device
    angle = _symmetric(n, device) * math.radians(config.rotate_deg)
    zoom = torch.exp(_symmetric(n, device) * math.log1p(config.scale))
    shift = _symmetric(2 * n, device).view(2, n) * (2.0 * config.shift)  # a side is 2 long
    mirror = torch.where(torch.rand(n, device=device) < config.flip, -1.0, 1.0)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = (cos * mirror, -sin, shift[0], sin * mirror, cos, shift[1])
    theta = torch.stack(rows, dim=1).view(n, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved: Tensor = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return moved


def _coarsen(images: Tensor, config: AugmentConfig) -> Tensor:
    """Reduce the resolution of some faces, float32[n, 1, h, w]; to the same one within a step."""
    n, device, side = len(images), images.device, min(images.shape[2:])
    low = min(config.fewest_pixels, side)
    fewer = int(torch.randint(low, side + 1, ()))
    small = F.interpolate(images, (fewer, fewer), mode="bilinear", antialias=True)
    coarse = F.interpolate(small, images.shape[2:], mode="bilinear")
    chosen = torch.rand(n, 1, 1, 1, device=device) < config.resolution
    return torch.where(chosen, coarse, images)


def _change_gamma(images: Tensor, gamma: float) -> Tensor:
    """Apply a random gamma to each face, between its darkest and its brightest grey level."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    width = (high - low).clamp(min=1e-3)
    power = torch.exp(_symmetric(len(images), images.device) * math.log1p(gamma))
    return ((images - low) / width).clamp(min=1e-4) ** power.view(-1, 1, 1, 1) * width + low


def _rectangles(images: Tensor, config: AugmentConfig) -> Tensor:
    """Return which pixels are erased: bool[n, 1, h, w]."""
    n, _, height, width = images.shape
    device = images.device
    area = torch.rand(n, device=device) * config.erase_area
    aspect = torch.exp(_symmetric(n, device))
    chosen = torch.rand(n, device=device) < config.erase
    half_y = (0.5 * (area * aspect).sqrt() * chosen).view(n, 1, 1, 1)
    half_x = (0.5 * (area / aspect).sqrt() * chosen).view(n, 1, 1, 1)
    centre_y, centre_x = torch.rand(2, n, 1, 1, 1, device=device)
    y = ((torch.arange(height, device=device) + 0.5) / height).view(1, 1, height, 1)
    x = ((torch.arange(width, device=device) + 0.5) / width).view(1, 1, 1, width)
    inside: Tensor = ((y - centre_y).abs() < half_y) & ((x - centre_x).abs() < half_x)
    return inside


def _symmetric(n: int, device: torch.device) -> Tensor:
    """Draw n numbers from -1 to 1."""
    return torch.rand(n, device=device) * 2.0 - 1.0
