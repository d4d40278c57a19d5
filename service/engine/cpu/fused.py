"""The network as a CPU computes it fastest: plain functions over tensors, most of them in C.

Eager torch packs a convolution's weights anew in every pass, gives a single face's convolutions to
a slow loop, and reads each result once more for the activation behind it. Here weights are packed
once, and an activation is part of its convolution, as is attention of a block's end. What the
kernels of `service.kernels` do not cover stays as torch's module computes it. All is in
float32, so that nothing but rounding changes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.kernels import Kernels, attention, im2col, winograd
from training.model.attention import ChannelAttention, SpatialAttention
from training.model.manifest import InputSpec
from training.model.network import AttentionFER, Block
from training.model.stn import SpatialTransformer, identity

Sizes = Mapping[nn.Module, tuple[int, int]]
"""Rows and columns of what each convolution is given."""
Step = Callable[[Tensor], Tensor]
"""A part of the network, without gradients; features are float32[n, c, h, w], channels last."""


def fuse(kernels: Kernels, network: AttentionFER, spec: InputSpec) -> Step:
    """Return what computes a network's logits, faster, on the CPU.

    Args:
        kernels: For this CPU.
        network: On the CPU, in evaluation mode, batch norm folded, without gradients; left as it
            is, and to be left so.
        spec: Sizes of the faces that it will see.

    Returns:
        Maps float32[n, 1, h, w], normalised and channels last, to logits float32[n, classes].
        To be called from one thread at a time.
    """
    sizes = sizes_of(network, spec)
    steps = [] if network.stn is None else [straightener(kernels, network.stn, spec, sizes)]
    steps += _steps(kernels, network.stem, sizes)
    blocks = (module for module in network.stages.modules() if isinstance(module, Block))
    steps += [_block(kernels, block, sizes) for block in blocks]
    features, classify = _chain(steps), network.classify.forward
    return lambda images: classify(features(images).mean(dim=(2, 3)))


def straightener(kernels: Kernels, stn: SpatialTransformer, spec: InputSpec, sizes: Sizes) -> Step:
    """Return what straightens images, float32[n, 1, h, w] to the same.

    Args:
        kernels: For this CPU.
        stn: As `fuse` takes a network.
        spec: Sizes of the images.
        sizes: Of what the localisation network's convolutions are given.
    """
    size = [spec.height, spec.width]
    # Where each pixel lies, and 1: of every batch the same, up to the transform.
    grid = F.affine_grid(identity(torch.zeros(1)), [1, 1, *size], align_corners=False)
    places = F.pad(grid.view(-1, 2), (0, 1), value=1.0)
    localise = _chain(_steps(kernels, stn.localise, sizes))
    parameters = _chain([*(layer.forward for layer in stn.hidden), stn.head.forward])

    def straighten(images: Tensor) -> Tensor:
        theta = stn.theta(parameters(localise(images)))
        read = (places @ theta.transpose(1, 2)).view(-1, *size, 2)
        return F.grid_sample(images, read, padding_mode="border", align_corners=False)

    return straighten


def sizes_of(network: AttentionFER, spec: InputSpec) -> Sizes:
    """Run a network once, to see what each of its convolutions is given.

    Args:
        network: As `fuse` takes it.
        spec: Likewise.
    """
    sizes: dict[nn.Module, tuple[int, int]] = {}

    def keep(module: nn.Module, given: tuple[Tensor]) -> None:
        sizes[module] = (given[0].shape[2], given[0].shape[3])

    convolutions = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    handles = [module.register_forward_pre_hook(keep) for module in convolutions]
    with torch.inference_mode():
        network(torch.zeros(1, 1, spec.height, spec.width))
    for handle in handles:
        handle.remove()
    return sizes


def _block(kernels: Kernels, block: Block, sizes: Sizes) -> Step:
    layers = [m for m in block.body if not isinstance(m, ChannelAttention | SpatialAttention)]
    convolve = _chain(_steps(kernels, layers, sizes))
    beside = _chain(_steps(kernels, block.shortcut, sizes))
    end = _ending(kernels, block, sizes)
    return lambda features: end(convolve(features), beside(features))


def _ending(kernels: Kernels, block: Block, sizes: Sizes) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what maps a block's convolved features, and what came past them, to its own."""
    last = [module for module in block.body if isinstance(module, nn.Conv2d)][-1]
    if attention.suits(kernels, block, last.out_channels):
        return attention.ending(kernels, block, last.out_channels, *sizes[last])
    weigh = _chain(
        m.forward for m in block.body if isinstance(m, ChannelAttention | SpatialAttention)
    )
    activate: Step = block.activation.forward
    return lambda features, shortcut: activate(weigh(features) + shortcut)


def _steps(kernels: Kernels, layers: Iterable[nn.Module], sizes: Sizes) -> Iterator[Step]:
    """Yield a step a layer, each convolution joined with the activation behind it."""
    left = list(layers)
    while left:
        layer = left.pop(0)
        if not isinstance(layer, nn.Conv2d):
            yield layer.forward
            continue
        activation = left[0] if left and isinstance(left[0], nn.GELU | nn.ReLU) else None
        way = next((w for w in (winograd, im2col) if w.suits(kernels, layer, activation)), None)
        if way is None:
            yield layer.forward
        else:
            yield way.convolution(kernels, layer, *sizes[layer], activation)
            del left[: activation is not None]


def _chain(steps: Iterable[Step]) -> Step:
    """Return the steps as one; of none, the one that changes nothing."""
    every = tuple(steps)

    def run(features: Tensor) -> Tensor:
        for step in every:
            features = step(features)
        return features

    return every[0] if len(every) == 1 else run
