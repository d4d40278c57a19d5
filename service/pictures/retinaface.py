"""RetinaFace with MobileNet 0.25: where faces are and five points of each, on a CPU.

Deng et al. 2019, "RetinaFace: Single-stage Dense Face Localisation in the Wild", arXiv:1905.00641,
as biubug6/Pytorch_Retinaface publishes it (MIT), trained on WIDER FACE. Deviations from the paper:
the small backbone (Howard et al. 2017, "MobileNets", arXiv:1704.04861, a quarter as wide), three
levels instead of five, and no dense regression. A face of 16 to 600 pixels is seen.

Batch norm is folded into the convolutions as the weights are read.
"""

import math
import threading

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import load
from torch import Tensor, nn

from service.pictures.boxes import Faces
from service.pictures.packed import Convolution, Precision, pack

# Anchors of each level: the stride of its grid, and the sides of the two at each of its points.
_ANCHORS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
# Deltas are shares of an anchor's side in these units, as SSD has them (arXiv:1512.02325).
_CENTRE_UNIT, _SIDE_UNIT = 0.1, 0.2
# Of the training pictures: red, green, blue.
_MEAN = (123.0, 117.0, 104.0)
_EPSILON = 1e-5  # of batch norm

# Channels and stride of each of the backbone's blocks, and which end a level.
_BLOCKS = (
    (16, 1),
    (32, 2),
    (32, 1),
    (64, 2),
    (64, 1),
    (128, 2),
    *[(128, 1)] * 5,
    (256, 2),
    (256, 1),
)
_LEVEL_ENDS = (4, 10, 12)
ALL_LEVELS = (0, 1, 2)
_WIDTH, _LEAK = 64, 0.1
_DETAILS = 2 * (4 + 10)  # box and five points of two anchors


class Context(nn.Module):
    """Sees 3x3, 5x5 and 7x7 around each place: SSH's module (arXiv:1708.03979)."""

    def __init__(self) -> None:
        super().__init__()
        half, quarter = _WIDTH // 2, _WIDTH // 4
        self.near = Convolution(_WIDTH, half, 3, slope=0.0)
        self.shared = Convolution(_WIDTH, quarter, 3, slope=_LEAK)
        self.middle = Convolution(quarter, quarter, 3, slope=0.0)
        self.inner = Convolution(quarter, quarter, 3, slope=_LEAK)
        self.far = Convolution(quarter, quarter, 3, slope=0.0)

    def forward(self, features: Tensor) -> Tensor:
        """Map features float[n, 64, h, w] to the same shape."""
        shared = self.shared(features)
        each = (self.near(features), self.middle(shared), self.far(self.inner(shared)))
        return torch.cat(each, dim=1)


class RetinaFace(nn.Module):
    """The network without its last layers' decoding; on any device."""

    def __init__(self) -> None:
        super().__init__()
        channels, blocks = 8, []
        self.stem = Convolution(3, channels, 3, stride=2, slope=_LEAK)
        for wider, stride in _BLOCKS:
            depthwise = Convolution(
                channels, channels, 3, stride=stride, groups=channels, slope=_LEAK
            )
            blocks.append(nn.Sequential(depthwise, Convolution(channels, wider, 1, slope=_LEAK)))
            channels = wider
        self.blocks = nn.ModuleList(blocks)
        ends = [_BLOCKS[end][0] for end in _LEVEL_ENDS]
        self.lateral = nn.ModuleList([Convolution(c, _WIDTH, 1, slope=_LEAK) for c in ends])
        self.merge = nn.ModuleList([Convolution(_WIDTH, _WIDTH, 3, slope=_LEAK) for _ in range(2)])
        self.context = nn.ModuleList([Context() for _ in _ANCHORS])
        self.confidence = nn.ModuleList([nn.Linear(_WIDTH, 2) for _ in _ANCHORS])
        self.details = nn.ModuleList([nn.Linear(_WIDTH, _DETAILS) for _ in _ANCHORS])

    def forward(self, images: Tensor, levels: tuple[int, ...] = ALL_LEVELS) -> list[Tensor]:
        """Return what each level sees.

        Args:
            images: float[n, 3, h, w], red, green, blue, the mean subtracted; channels last.
            levels: Which are wanted.

        Returns:
            For each level float32[n, rows, columns, 64]: what `confidence` and `details` take.
        """
        pyramid = self._pyramid(images, min(levels))
        seen = [self.context[level](pyramid[level]) for level in levels]
        return [features.float().permute(0, 2, 3, 1) for features in seen]

    def _pyramid(self, images: Tensor, finest: int) -> dict[int, Tensor]:
        features, ends = self.stem(images), []
        for index, block in enumerate(self.blocks):
            features = block(features)
            if index in _LEVEL_ENDS:
                ends.append(features)
        coarsest = len(ends) - 1
        pyramid = {coarsest: self.lateral[coarsest](ends[coarsest])}
        for level in range(coarsest - 1, finest - 1, -1):
            own, above = self.lateral[level](ends[level]), pyramid[level + 1]
            pyramid[level] = self.merge[level](own + F.interpolate(above, own.shape[2:]))
        return pyramid


def load_network(content: bytes) -> RetinaFace:
    """Read the weights that set-up has fetched.

    Args:
        content: A safetensors file, as `model_file` gives it; its names are the published ones.

    Returns:
        The network on the CPU, in float32, without gradients.
    """
    given, network = load(content), RetinaFace().eval().requires_grad_(False)
    convolutions = [m for m in network.modules() if isinstance(m, Convolution)]
    for convolution, name in zip(convolutions, _published_names(), strict=True):
        weight, bias = _folded(given, name)
        convolution.convolve.load_state_dict({"weight": weight, "bias": bias})
    stem = network.stem.convolve.weight
    stem.copy_(stem.flip(1))  # it was trained on blue, green, red
    for level in range(len(_ANCHORS)):
        _fill_heads(network, given, level)
    return network


def _published_names() -> list[str]:
    """Return what the published file calls each convolution, in this network's order."""
    stages = [f"stage1.{i}" for i in range(1, 6)] + [f"stage2.{i}" for i in range(6)]
    stages += [f"stage3.{i}" for i in range(2)]
    names = ["body.stage1.0.0"]
    names += [f"body.{stage}.{place}" for stage in stages for place in (0, 3)]
    names += [f"fpn.output{i}.0" for i in (1, 2, 3)] + [f"fpn.merge{i}.0" for i in (1, 2)]
    context = ("conv3X3", "conv5X5_1", "conv5X5_2", "conv7X7_2", "conv7x7_3")
    return names + [f"ssh{i}.{name}.0" for i in (1, 2, 3) for name in context]


def _folded(given: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a convolution and the batch norm behind it."""
    stem, _, place = name.rpartition(".")
    norm = f"{stem}.{int(place) + 1}"
    variance = given[f"{norm}.running_var"].double() + _EPSILON
    scale = given[f"{norm}.weight"].double() / variance.sqrt()
    bias = given[f"{norm}.bias"].double() - given[f"{norm}.running_mean"].double() * scale
    return given[f"{name}.weight"].double() * scale[:, None, None, None], bias


def _fill_heads(network: RetinaFace, given: dict[str, Tensor], level: int) -> None:
    def head(name: str) -> tuple[Tensor, Tensor]:
        stem = f"{name}.{level}.conv1x1"
        return given[f"{stem}.weight"].flatten(1), given[f"{stem}.bias"]

    # Softmax over "none" and "face" is the logistic function of their difference.
    for target, value in zip(
        network.confidence[level].parameters(), head("ClassHead"), strict=True
    ):
        target.copy_(value[1::2] - value[::2])
    box, points = head("BboxHead"), head("LandmarkHead")
    for target, b, p in zip(network.details[level].parameters(), box, points, strict=True):
        shape = (2, -1, *b.shape[1:])
        target.copy_(torch.cat([b.reshape(shape), p.reshape(shape)], dim=1).flatten(0, 1))


class CpuLook:
    """Looks at pictures on the CPU; any thread may call it, each has weights packed for it."""

    def __init__(
        self, network: RetinaFace, threads: int = 1, precision: Precision = "auto"
    ) -> None:
        """Look with a network.

        Args:
            network: As `load_network` returns it.
            threads: How many torch computes with; the whole process.
            precision: What it computes in. In bfloat16 a box's edges move by 0.2 % of its side, of
                one in twenty by more than 1.4 %.
        """
        torch.set_num_threads(threads)
        self._network, self._precision = network, precision
        self._of_thread = threading.local()

    def __call__(
        self,
        pixels: npt.NDArray[np.uint8],
        least: float,
        levels: tuple[int, ...] = ALL_LEVELS,
    ) -> Faces:
        """Look at a picture once, at the size that it has.

        Args:
            pixels: uint8[h, w, 3], red, green, blue.
            least: Least confidence, above 0 and below 1.
            levels: Which of the network's levels look: 0 sees faces of 16 to 45 pixels, 1 up to
                180, 2 larger ones. Without 0 it takes half the time.

        Returns:
            What it takes for faces, the same face many times, in pixels of the picture.
        """
        packed = self._of_thread.__dict__.get("network")
        if packed is None:
            packed = self._of_thread.network = pack(self._network, self._precision)
        with torch.inference_mode():
            seen = zip(levels, packed(_prepared(pixels), levels), strict=True)
            return np.concatenate(
                [_decoded(packed, level, features, least) for level, features in seen]
            )


def _prepared(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Return float32[1, 3, h, w], channels last, as the network takes it."""
    height, width, _ = pixels.shape
    rows = torch.from_numpy(np.array(pixels)).view(height, 3 * width).float()
    # A row at a time: three numbers at a time take four times as long.
    rows -= torch.tensor(_MEAN).repeat(width)
    return rows.view(1, height, width, 3).permute(0, 3, 1, 2)


def _decoded(network: RetinaFace, level: int, features: Tensor, least: float) -> Faces:
    """Return the faces of one level, of features float32[1, rows, columns, 64]."""
    stride, sides = _ANCHORS[level]
    logits = network.confidence[level](features[0])
    y, x, anchor = torch.nonzero(logits >= math.log(least / (1 - least)), as_tuple=True)
    details = network.details[level](features[0, y, x]).view(-1, len(sides), _DETAILS // 2)
    deltas = details[torch.arange(len(y)), anchor]
    side = torch.tensor(sides, dtype=torch.float32)[anchor][:, None]
    centre = (torch.stack([x, y], dim=1) + 0.5) * stride
    half = side * torch.exp(deltas[:, 2:4] * _SIDE_UNIT) / 2
    middle = centre + deltas[:, :2] * _CENTRE_UNIT * side
    points = centre.repeat(1, 5) + deltas[:, 4:] * _CENTRE_UNIT * side
    confidence = torch.sigmoid(logits[y, x, anchor])[:, None]
    return torch.cat([middle - half, middle + half, confidence, points], dim=1).numpy()
