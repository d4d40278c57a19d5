"""The network as a chain of plain functions over tensors, most of them in C, for a CPU.

Eager torch packs a convolution's weights again in every pass. It computes the convolutions of a
single face slowly, and it reads each result again for the activation. Here weights are packed once,
and a convolution includes its activation. One function computes the attention of a block, its sum
with the shortcut and its activation. Torch's modules compute what `service.kernels` does not
support. All is float32, so results differ from eager torch by rounding only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from service.kernels import Kernels, attention, im2col, sampling, winograd
from training.model.attention import ChannelAttention, SpatialAttention
from training.model.manifest import InputSpec
from training.model.network import AttentionFER, Block
from training.model.stn import SpatialTransformer

Sizes = Mapping[nn.Module, tuple[int, int]]
"""Rows and columns of each convolution's input."""
Step = Callable[[Tensor], Tensor]
"""A part of the network, without gradients; features are float32[n, c, h, w], channels last."""


def fuse(kernels: Kernels, network: AttentionFER, spec: InputSpec) -> Step:
    """Return a faster function for a network's logits on the CPU.

    Args:
        kernels: For this CPU.
        network: On the CPU, in evaluation mode, batch norm folded, without gradients; it is not
            modified, and must not be modified afterwards.
        spec: Sizes of its input.

    Returns:
        Maps float32[n, 1, h, w], normalised and channels last, to logits float32[n, classes].
        Called in one thread at a time.
    """
    sizes = find_input_sizes(network, spec)
    steps = [] if network.stn is None else [create_straightener(kernels, network.stn, spec, sizes)]
    steps += _steps(kernels, network.stem, sizes)
    blocks = (module for module in network.stages.modules() if isinstance(module, Block))
    steps += [_block(kernels, block, sizes) for block in blocks]
    features, classify = _chain(steps), network.classify.forward
    return lambda images: classify(features(images).mean(dim=(2, 3)))


def create_straightener(
    kernels: Kernels, stn: SpatialTransformer, spec: InputSpec, sizes: Sizes
) -> Step:
    """Return the function that straightens images by a spatial transformer.

    Args:
        kernels: For this CPU.
        stn: On the CPU, in evaluation mode, batch norm folded, without gradients.
        spec: Sizes of the images.
        sizes: Of the inputs of the localisation network's convolutions.

    Returns:
        Maps float32[n, 1, h, w], normalised, to straightened images of the same shape. Called in
        one thread at a time.
    """
    *layers, pool, _ = stn.localise
    linear, activation = cast(tuple[nn.Linear, nn.Module], tuple(stn.hidden))
    side = cast(int, cast(nn.AdaptiveAvgPool2d, pool).output_size)
    hidden = _as_convolution(linear, side)
    layers += [pool, hidden, activation]
    localise = _chain(_steps(kernels, layers, {**sizes, hidden: (side, side)}))
    sample = sampling.sampler(kernels, stn, spec.height, spec.width)
    return lambda images: sample(images, stn.head(localise(images).flatten(1)))


def _as_convolution(linear: nn.Linear, side: int) -> nn.Conv2d:
    """Return a layer over flattened features of side x side as a convolution of one output.

    The kernels then compute it together with its activation.
    """
    with torch.random.fork_rng([]):  # a new layer draws weights from torch's generator
        conv = nn.Conv2d(linear.in_features // side**2, linear.out_features, side)
    conv.requires_grad_(False).weight.copy_(linear.weight.view_as(conv.weight))
    conv.bias = linear.bias
    return conv


def find_input_sizes(network: AttentionFER, spec: InputSpec) -> Sizes:
    """Run a network once, to find the input sizes of its convolutions.

    Args:
        network: As for `fuse`.
        spec: As for `fuse`.
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
    """Return the function from a block's convolved features and its shortcut to its output."""
    last = [module for module in block.body if isinstance(module, nn.Conv2d)][-1]
    if attention.suits(kernels, block, last.out_channels):
        return attention.ending(kernels, block, last.out_channels, *sizes[last])
    weigh = _chain(
        m.forward for m in block.body if isinstance(m, ChannelAttention | SpatialAttention)
    )
    activate: Step = block.activation.forward
    return lambda features, shortcut: activate(weigh(features) + shortcut)


def _steps(kernels: Kernels, layers: Iterable[nn.Module], sizes: Sizes) -> Iterator[Step]:
    """Yield one step per layer; a convolution includes the activation after it."""
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
    """Return the composition of the steps; without steps, the identity."""
    every = tuple(steps)

    def run(features: Tensor) -> Tensor:
        for step in every:
            features = step(features)
        return features

    return every[0] if len(every) == 1 else run
