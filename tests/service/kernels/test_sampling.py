"""Tests of `service.kernels.sampling`, against torch's own sampling."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.kernels import Kernels, sampling
from training.model.manifest import Transform
from training.model.stn import SpatialTransformer

pytestmark = pytest.mark.cpu


def some_images(count: int, height: int, width: int) -> Tensor:
    # Smooth, so that rounding of a coordinate changes a sample little.
    coarse = torch.randn(count, 1, 4, 5, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, (height, width), mode="bilinear")


def some_parameters(count: int, stn: SpatialTransformer) -> Tensor:
    size = (count, len(stn.head.bias))
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


def expected(stn: SpatialTransformer, images: Tensor, parameters: Tensor) -> Tensor:
    grid = F.affine_grid(stn.theta(parameters), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


@pytest.mark.parametrize("transform", ["similarity", "affine"])
@pytest.mark.parametrize("size", [(1, 48, 48), (3, 32, 40), (2, 7, 5), (2, 1, 1)])
def test_it_samples_as_torch_does(
    kernels: Kernels, transform: Transform, size: tuple[int, int, int]
) -> None:
    stn, images = SpatialTransformer(1, nn.GELU, transform), some_images(*size)
    parameters, kept = some_parameters(size[0], stn), images.clone()
    sample = sampling.sampler(kernels, stn, *size[1:])
    actual = sample(images, parameters)
    torch.testing.assert_close(actual, expected(stn, images, parameters), atol=2e-5, rtol=1e-5)
    assert torch.equal(images, kept)
    first = actual.clone()
    sample(images, -parameters)
    assert torch.equal(actual, first), "an answer was written over by the next"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30, 1e30])
def test_no_pixel_outside_an_image_is_read(kernels: Kernels, value: float) -> None:
    stn, images = SpatialTransformer(1, nn.GELU, "affine"), some_images(1, 12, 12)
    actual = sampling.sampler(kernels, stn, 12, 12)(images, torch.full((1, 6), value))
    assert images.min() <= actual.min()
    assert actual.max() <= images.max()


@pytest.mark.parametrize(
    "images", [some_images(2, 12, 11), some_images(2, 12, 12).double(), torch.ones(2, 2, 12, 12)]
)
def test_other_images_are_refused(kernels: Kernels, images: Tensor) -> None:
    sample = sampling.sampler(kernels, SpatialTransformer(1, nn.GELU), 12, 12)
    with pytest.raises(ValueError, match=r"features are torch\.float"):
        sample(images, torch.zeros(2, 4))


@pytest.mark.parametrize(
    "parameters", [torch.zeros(1, 4), torch.zeros(2, 6), torch.zeros(2, 4).double()]
)
def test_other_parameters_are_refused(kernels: Kernels, parameters: Tensor) -> None:
    sample = sampling.sampler(kernels, SpatialTransformer(1, nn.GELU), 12, 12)
    with pytest.raises(ValueError, match=r"parameters are torch\.float"):
        sample(some_images(2, 12, 12), parameters)
