"""The end of a spatial transformer, from its parameters to the straightened images.

Torch takes about twenty operators for it. For a single face most of their time is overhead.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from service.kernels import Kernels, as_read
from training.model.stn import SpatialTransformer


def sampler(
    kernels: Kernels, stn: SpatialTransformer, height: int, width: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function that straightens images by a spatial transformer's parameters.

    Args:
        kernels: For this CPU.
        stn: Gives the kind of transform and its bounds.
        height: Of the images, in pixels.
        width: Of the images, in pixels.

    Returns:
        Maps images float32[n, 1, height, width] and what `stn.head` gives, float32[n, 4] or
        float32[n, 6], to straightened images of the same shape, without gradients. Called in any
        thread. Raises ValueError for images or parameters of another size or dtype.
    """
    limits = stn.bounds
    bounds = (
        torch.tensor([math.log(limits.scale), math.radians(limits.angle_deg), 2.0 * limits.shift])
        if stn.transform == "similarity"
        else None
    )
    count = 6 if bounds is None else 4

    def sample(images: Tensor, parameters: Tensor) -> Tensor:
        images = as_read(images, 1, height, width)
        if parameters.shape != (len(images), count) or parameters.dtype != torch.float32:
            raise ValueError(f"parameters are {parameters.dtype}{list(parameters.shape)}")
        parameters, out = parameters.contiguous(), torch.empty_like(images)
        limit = None if bounds is None else bounds.data_ptr()
        pointers = (images.data_ptr(), parameters.data_ptr(), limit, out.data_ptr())
        kernels.library.sample(*pointers, len(images), height, width)
        return out

    return sample
