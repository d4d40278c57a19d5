"""Measures accuracy on faces that are rotated, moved, blurred, darkened, compressed or covered.

Each corruption maps uint8 faces to uint8 faces, so that the accuracy is that of the service for
such pictures.
"""

import math
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from training.dataset import Split
from training.evaluate import predict, score
from training.machine import Machine
from training.model.checkpoint import Checkpoint

Corruption = Callable[[Tensor, float], Tensor]
"""Maps uint8[n, h, w] and a level to uint8[n, h, w]."""

Curves = dict[str, list[dict[str, float]]]
"""For each corruption its levels, with accuracy and macro-F1 from 0 to 1."""


def rotate(faces: Tensor, degrees: float) -> Tensor:
    """Rotate faces uint8[n, h, w] anticlockwise, repeating the border."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return _sample(faces, ((cos, -sin, 0.0), (sin, cos, 0.0)))


def scale(faces: Tensor, factor: float) -> Tensor:
    """Enlarge faces uint8[n, h, w] about their centre; below 1 shrinks, repeating the border."""
    return _sample(faces, ((1 / factor, 0.0, 0.0), (0.0, 1 / factor, 0.0)))


def shift(faces: Tensor, share: float) -> Tensor:
    """Move faces uint8[n, h, w] right and down by a share of their side, repeating the border."""
    return _sample(faces, ((1.0, 0.0, -2 * share), (0.0, 1.0, -2 * share)))


def blur(faces: Tensor, sigma: float) -> Tensor:
    """Blur faces uint8[n, h, w] by a Gaussian of `sigma` pixels."""
    if sigma == 0:
        return faces
    reach = math.ceil(3 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    images = F.pad(faces.unsqueeze(1).float(), (reach,) * 4, mode="replicate")
    images = F.conv2d(images, kernel.view(1, 1, 1, -1))
    return _to_bytes(F.conv2d(images, kernel.view(1, 1, -1, 1)).squeeze(1))


def noise(faces: Tensor, deviation: float) -> Tensor:
    """Add Gaussian noise of `deviation` grey levels to faces uint8[n, h, w], always the same."""
    generator = torch.Generator().manual_seed(0)
    return _to_bytes(faces + deviation * torch.randn(faces.shape, generator=generator))


def brighten(faces: Tensor, factor: float) -> Tensor:
    """Multiply the grey levels of faces uint8[n, h, w], clipping at 255."""
    return _to_bytes(faces * factor)


def compress(faces: Tensor, quality: float) -> Tensor:
    """Save faces uint8[n, h, w] as JPEG of this quality, 1 to 95, and read them again."""
    read = []
    for face in faces.numpy():
        file = BytesIO()
        Image.fromarray(face).save(file, "JPEG", quality=int(quality))
        read.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(read))


def cover_eyes(faces: Tensor, share: float) -> Tensor:
    """Cover a band over the eyes of faces uint8[n, h, w]: `share` of a third of their height."""
    return _cover(faces, 0.38, share / 3)


def cover_mouth(faces: Tensor, share: float) -> Tensor:
    """Cover a band over the mouth of faces uint8[n, h, w]: `share` of a third of their height."""
    return _cover(faces, 0.78, share / 3)


CORRUPTIONS: Final[Mapping[str, tuple[Corruption, tuple[float, ...]]]] = {
    "rotation (degrees)": (rotate, (-45, -30, -15, 0, 15, 30, 45)),
    "scale": (scale, (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3)),
    "shift (share of side)": (shift, (-0.25, -0.17, -0.08, 0.0, 0.08, 0.17, 0.25)),
    "blur (sigma, pixels)": (blur, (0, 0.5, 1, 1.5, 2, 3)),
    "noise (grey levels)": (noise, (0, 5, 10, 20, 30, 40)),
    "brightness": (brighten, (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)),
    "JPEG quality": (compress, (5, 10, 20, 40, 60, 90)),
    "eyes covered": (cover_eyes, (0, 0.5, 1.0)),
    "mouth covered": (cover_mouth, (0, 0.5, 1.0)),
}
"""All corruptions by name, with the levels to measure."""

GEOMETRY: Final[tuple[str, ...]] = tuple(CORRUPTIONS)[:3]
"""The corruptions that a spatial transformer can undo."""


def measure_curves(
    checkpoint: Checkpoint,
    split: Split,
    machine: Machine,
    names: tuple[str, ...] = tuple(CORRUPTIONS),
) -> Curves:
    """Score a checkpoint on corrupted faces, in a single pass.

    Args:
        checkpoint: Its network is on the machine's device.
        split: The faces, on the CPU.
        machine: Where to compute.
        names: Which of `CORRUPTIONS`.

    Returns:
        Accuracy and macro-F1 at each level of each corruption.
    """
    curves: Curves = {}
    for name in names:
        corrupt, levels = CORRUPTIONS[name]
        curves[name] = []
        for level in levels:
            faces = corrupt(split.faces, level)
            logits = predict(checkpoint.network, faces, checkpoint.manifest.input_spec, machine)
            scores = score(logits, split.targets)
            point = {"level": level, "accuracy": scores.accuracy, "macro_f1": scores.macro_f1}
            curves[name].append(point)
    return curves


def _sample(faces: Tensor, rows: tuple[tuple[float, ...], ...]) -> Tensor:
    theta = torch.tensor([rows]).expand(len(faces), 2, 3)
    images = faces.unsqueeze(1).float()
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return _to_bytes(moved.squeeze(1))


def _cover(faces: Tensor, centre: float, height: float) -> Tensor:
    rows = faces.shape[1]
    first, last = round(rows * (centre - height / 2)), round(rows * (centre + height / 2))
    covered = faces.clone()
    covered[:, first:last] = 127
    return covered


def _to_bytes(images: Tensor) -> Tensor:
    return images.round().clamp(0, 255).to(torch.uint8)
