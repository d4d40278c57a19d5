"""The network of the paper: a spatial transformer, then a residual network with attention.

After Wang, Wang & Cui 2021, "Facial Expression Recognition with Attention Mechanism",
DOI 10.1109/CISP-BMEI53629.2021.9624355. The paper's four claims are four switches. Its widths
and depth are not known; ours are a residual network (He et al. 2015, arXiv:1512.03385) whose
sizes were chosen for the time that they train in on two CPU cores.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.model.attention import ChannelAttention, SpatialAttention
from training.model.manifest import InputSpec, NetworkConfig
from training.model.stn import SpatialTransformer

_ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


class Output(NamedTuple):
    """The result of a forward pass.

    Attributes:
        logits: float[n, classes].
        theta: float32[n, 2, 3], the transform that straightened each face; None without STN.
    """

    logits: Tensor
    theta: Tensor | None


class Block(nn.Module):
    """Two convolutions, then channel and spatial attention, beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int, config: NetworkConfig) -> None:
        """Build a block from `before` to `after` channels; stride 2 halves the resolution."""
        super().__init__()
        activation = _ACTIVATIONS[config.activation]
        body: list[nn.Module] = [
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            activation(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        ]
        if config.channel_attention:
            body.append(ChannelAttention(after, activation))
        if config.spatial_attention:
            body.append(SpatialAttention())
        self.body = nn.Sequential(*body)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            # The kernel is as wide as the stride: the usual 1x1 would ignore three of four pixels.
            conv = nn.Conv2d(before, after, stride, stride=stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(after))
        self.activation = activation()

    def forward(self, features: Tensor) -> Tensor:
        """Map features float[n, before, h, w] to float[n, after, h / stride, w / stride]."""
        out: Tensor = self.activation(self.body(features) + self.shortcut(features))
        return out


class AttentionFER(nn.Module):
    """Maps normalised faces to one logit per emotion."""

    def __init__(self, config: NetworkConfig) -> None:
        """Build the network, its weights drawn from torch's global generator."""
        super().__init__()
        self.config = config
        activation = _ACTIVATIONS[config.activation]
        self.stn = SpatialTransformer(1, activation, config.transform) if config.stn else None
        # A wide kernel with a stride: layers at full resolution cost most, and were measured to
        # improve accuracy least for their time.
        self.stem = nn.Sequential(
            nn.Conv2d(1, config.widths[0], 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(config.widths[0]),
            activation(),
        )
        stages: list[nn.Module] = []
        before = config.widths[0]
        for after, depth in zip(config.widths, config.depths, strict=True):
            blocks = [Block(before, after, 2 if stages else 1, config)]
            blocks += [Block(after, after, 1, config) for _ in range(depth - 1)]
            stages.append(nn.Sequential(*blocks))
            before = after
        self.stages = nn.Sequential(*stages)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(before, config.classes)
        if not self.classify.weight.is_meta:  # on meta, drawing would import torch's compiler
            self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialise: He for convolutions, the identity for the spatial transformer."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if self.stn is not None:
            self.stn.reset_parameters()

    def forward(self, images: Tensor) -> Output:
        """Classify faces.

        Args:
            images: float[n, 1, h, w], normalised by `preprocess.normalise`.

        Returns:
            Logits and, with the STN, the transforms.
        """
        theta = None
        if self.stn is not None:
            images, theta = self.stn(images)
        features = self.stages(self.stem(images)).mean(dim=(2, 3))
        return Output(self.classify(self.dropout(features)), theta)


def count_parameters(network: nn.Module) -> int:
    """Return the number of learned parameters."""
    return sum(p.numel() for p in network.parameters())


def count_multiply_adds(network: AttentionFER, spec: InputSpec) -> int:
    """Return the multiply-adds of one face, in convolutions and matrix products.

    Half of the floating-point operations that torch's counter reports. As usual, normalisation,
    activations, pooling and the STN's sampling are not counted.
    """
    # Imported here: it looks for triton, which serving does not need.
    from torch.utils.flop_counter import FlopCounterMode

    weight = next(network.parameters())
    images = torch.zeros(1, 1, spec.height, spec.width, device=weight.device, dtype=weight.dtype)
    training = network.training
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(images)
    network.train(training)
    return int(counter.get_total_flops()) // 2
