"""The network as a CPU computes it fastest: each convolution one call, packed beforehand.

Eager torch gives a single face's convolutions to a slow loop of its own, packs their weights anew
in every pass, and reads each result once more for the activation behind it. Here weights are
packed once and the activation is part of the convolution, by the operators that torch's compiler
calls. In float32 most of that is left to `service.engine.cpu.kernels`, where it is there: on AVX2 it
takes half of oneDNN's time. Where the CPU has instructions for bfloat16, the stages' convolutions
compute in it, and all else in float32: the transform, because positions need the digits, the stem,
because the picture does, and what is between convolutions, because it is faster.

Of a single face a tenth of the time went to what is around the arithmetic. So the network becomes
plain functions over tensors, not modules, and says the same in fewer operators.

Not its duty: folding batch norm, which comes before; GPUs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from service.engine.cpu.kernels import attention, computes_wider, im2col, library, winograd
from training.model.attention import ChannelAttention, SpatialAttention
from training.model.manifest import InputSpec
from training.model.network import AttentionFER, Block
from training.model.stn import SpatialTransformer, identity

# Weights are packed as a batch of this size reads them best. Any will do: what costs is to pack
# for no size at all, which makes AVX2 pack anew, at 20 ms a convolution, in every pass.
_PACKED_FOR = 8

# Up to so many places, a kernel over two maps is faster as a product with a matrix: oneDNN takes
# 0.1 ms to begin, and of 144 places the matrix has 0.2 MB. Of four times as many it has 2.7 MB.
_FEW_PLACES = 256

Shapes = Mapping[nn.Module, list[int]]
"""What each convolution is given: faces, channels, rows and columns."""
Step = Callable[[Tensor], Tensor]
"""A part of the network, without gradients; features are float[n, c, h, w], channels last."""


def can_fuse() -> bool:
    """Tell whether this build of torch has oneDNN."""
    return bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def multiplies_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16 by itself: emulated, it is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def fuse(network: AttentionFER, spec: InputSpec, dtype: torch.dtype) -> Step:
    """Return what computes a network's logits, faster, on the CPU.

    Args:
        network: On the CPU, in evaluation mode, batch norm folded, without gradients; left as it
            is, and to be left so.
        spec: Sizes of the faces that it will see.
        dtype: What the stages' convolutions compute in: float32, which changes the logits by
            rounding alone, or bfloat16, where `multiplies_bfloat16`.

    Returns:
        Maps float32[n, 1, h, w], normalised and channels last, to logits float32[n, classes].
        To be called from one thread at a time.
    """
    shapes = shapes_of(network, spec)
    steps = [] if network.stn is None else [straightener(network.stn, spec, shapes)]
    steps += _steps(network.stem, shapes, torch.float32)
    blocks = (module for module in network.stages.modules() if isinstance(module, Block))
    steps += [_block(block, shapes, dtype) for block in blocks]
    features, classify = _chain(steps), network.classify.forward
    return lambda images: classify(features(images).mean(dim=(2, 3)))


def straightener(stn: SpatialTransformer, spec: InputSpec, shapes: Shapes) -> Step:
    """Return what straightens images, float32[n, 1, h, w] to the same.

    Args:
        stn: As `fuse` takes a network.
        spec: Sizes of the images.
        shapes: Of the localisation network's convolutions.
    """
    size = [spec.height, spec.width]
    # Where each pixel lies, and 1: of every batch the same, up to the transform.
    grid = F.affine_grid(identity(torch.zeros(1)), [1, 1, *size], align_corners=False)
    places = F.pad(grid.view(-1, 2), (0, 1), value=1.0)
    localise = _chain(_steps(stn.localise, shapes, torch.float32))
    parameters = _chain([*(layer.forward for layer in stn.hidden), stn.head.forward])

    def straighten(images: Tensor) -> Tensor:
        theta = stn.theta(parameters(localise(images)))
        read = (places @ theta.transpose(1, 2)).view(-1, *size, 2)
        return F.grid_sample(images, read, padding_mode="border", align_corners=False)

    return straighten


def _block(block: Block, shapes: Shapes, dtype: torch.dtype) -> Step:
    layers = [m for m in block.body if not isinstance(m, ChannelAttention | SpatialAttention)]
    convolve, beside = _chain(_steps(layers, shapes, dtype)), _shortcut(block, shapes, dtype)
    end = _ending(block, shapes)

    def run(features: Tensor) -> Tensor:
        narrow = features.to(dtype)
        shortcut = features if beside is None else beside(narrow).float()
        return end(convolve(narrow).float(), shortcut)

    return run


def _ending(block: Block, shapes: Shapes) -> Callable[[Tensor, Tensor], Tensor]:
    """Return what maps a block's convolved features, and what came past them, to its own."""
    last = [module for module in block.body if isinstance(module, nn.Conv2d)][-1]
    native, (_, _, height, width) = library(), shapes[last]
    if native and attention.suits(block, last.out_channels):
        return attention.ending(native, block, last.out_channels, height, width)
    weigh = _chain(_channel_gate(m) for m in block.body if isinstance(m, ChannelAttention))
    gates = [_spatial_gate(m, shapes) for m in block.body if isinstance(m, SpatialAttention)]
    places, activate = gates[0] if gates else None, cast(Step, block.activation.forward)

    def run(features: Tensor, shortcut: Tensor) -> Tensor:
        out = weigh(features)
        if places is None:
            return activate(shortcut + out)
        return activate(torch.addcmul(shortcut, out, places(out)))

    return run


def _shortcut(block: Block, shapes: Shapes, dtype: torch.dtype) -> Step | None:
    steps = list(_steps(block.shortcut, shapes, dtype))
    return _chain(steps) if steps else None


def _channel_gate(attention: ChannelAttention) -> Step:
    """Return what weighs channels, without the indices of maxima, which only a gradient needs."""
    first, activation, last = attention.shared
    hidden, last = _chain((first.forward, activation.forward)), cast(nn.Linear, last)
    bias = 2 * last.bias

    def gate(features: Tensor) -> Tensor:
        descriptors = torch.cat((features.mean(dim=(2, 3)), features.amax(dim=(2, 3))))
        mean, maximum = hidden(descriptors).chunk(2)
        # The last layer is linear: once for the sum gives the sum of both.
        weights = F.linear(mean + maximum, last.weight, bias)
        return features * weights.sigmoid_()[:, :, None, None]

    return gate


def _spatial_gate(attention: SpatialAttention, shapes: Shapes) -> Step:
    """Return what maps features to the weights of their places, float[n, 1, h, w], likewise."""
    conv = attention.conv
    _, _, height, width = shapes[conv]
    if height * width <= _FEW_PLACES:
        return _small_spatial_gate(conv, height, width)
    convolve = _convolution(conv, shapes[conv], torch.float32)

    def gate(features: Tensor) -> Tensor:
        mean, maximum = features.mean(dim=1, keepdim=True), features.amax(dim=1, keepdim=True)
        return convolve(torch.cat((mean, maximum), dim=1)).sigmoid_()

    return gate


def _small_spatial_gate(conv: nn.Conv2d, height: int, width: int) -> Step:
    """Return the same where its convolution is best written out as a matrix over all places."""
    places = height * width
    each = torch.eye(2 * places).view(-1, 2, height, width)
    spread = F.conv2d(each, conv.weight.detach(), None, padding=conv.padding)
    weight = spread.flatten(1).t().contiguous()
    bias = None if conv.bias is None else conv.bias.detach().expand(places).contiguous()

    def gate(features: Tensor) -> Tensor:
        maps = features.mean(dim=1).flatten(1), features.amax(dim=1).flatten(1)
        return F.linear(torch.cat(maps, dim=1), weight, bias).sigmoid_().view(-1, 1, height, width)

    return gate


def _steps(layers: Iterable[nn.Module], shapes: Shapes, dtype: torch.dtype) -> Iterator[Step]:
    """Yield a step a layer, each convolution joined with the activation behind it."""
    left = list(layers)
    while left:
        layer = left.pop(0)
        if isinstance(layer, nn.Conv2d):
            activated = bool(left) and isinstance(left[0], nn.GELU | nn.ReLU)
            activation = left.pop(0) if activated else None
            yield _convolution(layer, shapes[layer], dtype, activation)
        else:
            yield layer.forward


def _convolution(
    conv: nn.Conv2d, shape: list[int], dtype: torch.dtype, activation: nn.Module | None = None
) -> Step:
    """Pack a convolution, padded by numbers, and the activation behind it.

    Args:
        conv: The convolution.
        shape: Of what it will be given, apart from how many.
        dtype: What it takes, computes in and gives.
        activation: `nn.GELU` or `nn.ReLU`, if any.
    """
    native, (_, _, height, width) = library(), shape
    if native and dtype == torch.float32:
        if winograd.suits(conv, activation):
            return winograd.convolution(native, conv, height, width, activation)
        if im2col.suits(conv, activation) and not computes_wider():
            return im2col.convolution(native, conv, height, width, activation)
    way = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
    weight = conv.weight.detach().to(dtype, memory_format=torch.channels_last)
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *way, shape)
    bias = None if conv.bias is None else conv.bias.detach().to(dtype)
    name, formula = _name(activation)
    convolve = torch.ops.mkldnn._convolution_pointwise.default
    return lambda features: convolve(features, packed, bias, *way, name, [], formula)


def _chain(steps: Iterable[Step]) -> Step:
    """Return the steps as one; of none, the one that changes nothing."""
    every = tuple(steps)

    def run(features: Tensor) -> Tensor:
        for step in every:
            features = step(features)
        return features

    return every[0] if len(every) == 1 else run


def shapes_of(network: AttentionFER, spec: InputSpec) -> Shapes:
    """Run a network once, to see what each of its convolutions is given.

    Args:
        network: As `fuse` takes it.
        spec: Likewise.
    """
    shapes: dict[nn.Module, list[int]] = {}

    def keep(module: nn.Module, given: tuple[Tensor]) -> None:
        shapes[module] = [_PACKED_FOR, *given[0].shape[1:]]

    convolutions = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    handles = [module.register_forward_pre_hook(keep) for module in convolutions]
    with torch.inference_mode():
        network(torch.zeros(1, 1, spec.height, spec.width))
    for handle in handles:
        handle.remove()
    return shapes


def _name(activation: nn.Module | None) -> tuple[str, str]:
    """Return what oneDNN calls an activation, and which formula of it is meant."""
    if isinstance(activation, nn.GELU):
        return "gelu", activation.approximate
    return ("none" if activation is None else "relu"), ""
