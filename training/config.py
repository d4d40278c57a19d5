"""The settings of a run, and the recipes as named constants.

A recipe is independent of the machine: data folders, device and processes are given elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from training.model.manifest import NetworkConfig


@dataclass(frozen=True)
class AugmentConfig:
    """How far a training face is varied; every amount is drawn anew for each face.

    Attributes:
        flip: Probability of a left-right flip.
        rotate_deg: Largest rotation in either direction, in degrees.
        scale: Largest relative change of size in either direction.
        shift: Largest shift in either direction, as a share of the side; a crop, in effect.
        brightness: Largest shift of the grey levels, in deviations of the training set.
        contrast: Largest relative change of contrast.
        erase: Probability that a rectangle is blanked (Zhong et al. 2017, arXiv:1708.04896).
        erase_area: Largest share of the face that is blanked.
        gamma: Largest change of gamma in either direction, as a factor less 1: faces in shadow
            or glare.
        resolution: Probability that a step's face is seen through fewer pixels.
        fewest_pixels: The shortest side that it is then seen through, in pixels.
        noise: Largest deviation of the noise added, in deviations of the training set.
        mixup: Parameter of mixup's Beta distribution (Zhang et al. 2017, arXiv:1710.09412);
            0 turns it off.
    """

    flip: float = 0.5
    rotate_deg: float = 12.0
    scale: float = 0.12
    shift: float = 0.08
    brightness: float = 0.2
    contrast: float = 0.2
    erase: float = 0.25
    erase_area: float = 0.2
    gamma: float = 0.0
    resolution: float = 0.0
    fewest_pixels: int = 14
    noise: float = 0.0
    mixup: float = 0.2


@dataclass(frozen=True)
class TrainConfig:
    """A recipe.

    Attributes:
        network: Shape of the network; its classes are set by the data.
        augment: How faces are varied.
        epochs: Passes over the training faces.
        batch_size: Faces a step, over all processes together.
        optimiser: AdamW, or SGD with Nesterov momentum.
        learning_rate: At its peak.
        momentum: Of SGD.
        weight_decay: On matrices and kernels only.
        warmup_epochs: Epochs over which the rate rises from 0; then it falls on a cosine to 0.
        second_target: Weight of the data's second task in the loss, beside the first one's 1;
            0 learns the first alone. A run with both keeps a checkpoint of each.
        label_share: Share of each target that the data's second task gives to the first one's,
            emotion by emotion: FER2013's label as further votes beside FER+'s. With
            `teachers_watch` also the weight of teachers that name the second task's emotions, in
            the geometric mean of all.
        balance: Power of the training labels' prior that is added to the logits in the loss, 0 to
            1; at 1 the network learns as if all emotions were equally frequent (balanced softmax,
            Ren et al. 2020, arXiv:2007.10740). What is kept has the prior in its last layer's bias,
            so that its probabilities are always those under the training prior.
        teacher_share: Share of each target that teachers give (`training.distil`), who are named on
            the command line.
        teachers_watch: Whether teachers are asked at every step about the faces as the student
            sees them, varied and mixed, instead of once about each as it is.
        label_smoothing: Share of each target spread over all emotions.
        ema_decay: Of the average of weights that is evaluated and kept.
        clip_norm: Largest norm of the gradient.
        clean_epochs: Last epochs, without any augmentation but the flip.
        stn_learning_rate: Multiplier of the spatial transformer's rate.
        stn_identity_penalty: Weight of the mean squared distance of theta from identity.
        validate_every: Epochs from one validation to the next; the last one is always validated. An
            epoch that is not validated cannot be kept.
        seed: Of everything random.
    """

    network: NetworkConfig = field(default_factory=NetworkConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    epochs: int = 46
    batch_size: int = 128
    optimiser: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1.5e-3
    momentum: float = 0.9
    weight_decay: float = 0.05
    warmup_epochs: float = 1.0
    second_target: float = 0.0
    label_share: float = 0.0
    balance: float = 0.0
    teacher_share: float = 0.0
    teachers_watch: bool = False
    label_smoothing: float = 0.1
    ema_decay: float = 0.999
    clip_norm: float = 5.0
    clean_epochs: int = 0
    stn_learning_rate: float = 0.1
    stn_identity_penalty: float = 0.1
    validate_every: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            ValueError: Names the field that is wrong.
        """
        if self.epochs < 1 or not 0 <= self.clean_epochs <= self.epochs:
            raise ValueError("train config: epochs must be 1 or more, clean_epochs up to epochs")
        if self.validate_every < 1:
            raise ValueError("train config: validate_every must be 1 or more")
        if self.batch_size < 2:
            raise ValueError("train config: batch_size must be 2 or more, for batch norm")
        if self.optimiser not in ("sgd", "adamw"):
            raise ValueError(f"train config: optimiser is {self.optimiser!r}")
        if self.learning_rate <= 0 or self.clip_norm <= 0:
            raise ValueError("train config: learning_rate and clip_norm must be above 0")
        if self.second_target < 0:
            raise ValueError("train config: second_target must be 0 or more")
        shares = (self.teacher_share, self.label_share, self.balance)
        if not all(0.0 <= share <= 1.0 for share in shares):
            raise ValueError("train config: teacher_share, label_share and balance are from 0 to 1")
        if self.label_share and self.second_target:
            raise ValueError("train config: label_share and second_target exclude each other")
        if not 0.0 <= self.label_smoothing < 1.0 or not 0.0 <= self.ema_decay < 1.0:
            raise ValueError("train config: label_smoothing and ema_decay are from 0 to below 1")


# On from the weights of `ferplus`, which had learnt its training faces little better (0.860)
# than others (0.835): what keeps it from learning is turned down, and the end is longer.
_REFINE: Final = TrainConfig(
    augment=AugmentConfig(rotate_deg=12.0, scale=0.15, shift=0.08, erase=0.15, mixup=0.0),
    epochs=27,
    learning_rate=8e-4,
    weight_decay=0.03,
    warmup_epochs=0.5,
    second_target=1.0,
    label_smoothing=0.02,
    clean_epochs=6,
)

RECIPES: Final[Mapping[str, TrainConfig]] = {
    # Own labels, or few faces: on from the weights of a shipped checkpoint (--weights), in small
    # batches, so that some hundred faces are enough for some hundred steps.
    "finetune": replace(
        _REFINE,
        epochs=20,
        batch_size=32,
        learning_rate=3e-4,
        second_target=0.0,
        label_smoothing=0.05,
        ema_decay=0.99,
        clean_epochs=4,
    ),
    # The shipped checkpoint's; sized for two CPU cores and two hours. AdamW, because SGD at the
    # usual rates had not left the first plateau after two epochs where AdamW had after one.
    "fer2013": TrainConfig(),
    # Both tasks of the same faces at once, from the weights of `fer2013` (--weights): FER+'s
    # ten votes a face tell what FER2013's one noisy label hides, and the other way round. Varies
    # position and size more than `fer2013`: detected faces vary more than its crops do.
    "ferplus": TrainConfig(
        augment=AugmentConfig(rotate_deg=15.0, scale=0.2, shift=0.1, erase=0.3),
        epochs=30,
        learning_rate=1e-3,
        warmup_epochs=0.5,
        second_target=1.0,
        label_smoothing=0.05,
        clean_epochs=2,
    ),
    "refine": _REFINE,
    # On from the best of several seeds of `refine`, taught by all of them (--teachers): half of
    # each target is what they make of the face, which is less noisy than its one label or ten.
    # Less far and at a lower rate; no smoothing, for the teachers are smooth.
    "distil": replace(
        _REFINE,
        epochs=18,
        learning_rate=5e-4,
        teacher_share=0.5,
        label_smoothing=0.0,
        clean_epochs=5,
    ),
    # One answer made of both tasks, for faces from elsewhere: on from the weights of `ferplus`,
    # FER2013's label as four further votes beside ten, every emotion as frequent as the others,
    # and variation as far as photographs go: turned, near and far, dark, coarse. Taught by the
    # shipped checkpoints of both tasks, multiplied: together they are better on faces from
    # elsewhere than each.
    "everywhere": TrainConfig(
        augment=AugmentConfig(
            rotate_deg=20.0,
            scale=0.25,
            shift=0.12,
            brightness=0.4,
            contrast=0.4,
            gamma=0.5,
            erase=0.2,
            resolution=0.3,
            noise=0.15,
            mixup=0.2,
        ),
        epochs=14,
        learning_rate=6e-4,
        weight_decay=0.03,
        warmup_epochs=0.5,
        label_share=0.3,
        balance=1.0,
        teacher_share=0.7,
        teachers_watch=True,
        label_smoothing=0.0,
        clean_epochs=0,
    ),
    # `ferplus` for a large GPU, from random weights: deeper, to the edge of the budget of 6 M
    # parameters and 350 M multiply-adds, and for as long as from scratch is known to need.
    "ferplus-gpu": TrainConfig(
        network=NetworkConfig(depths=(2, 3, 3)),
        augment=AugmentConfig(rotate_deg=15.0, scale=0.2, shift=0.1, erase=0.3),
        epochs=200,
        batch_size=512,
        learning_rate=3e-3,
        warmup_epochs=5.0,
        second_target=1.0,
        label_smoothing=0.05,
        ema_decay=0.9995,
        clean_epochs=5,
    ),
    # On from a checkpoint of the shipped shape, taught by it and by several of `ferplus-gpu`. They
    # know their training faces too well to teach by these alone: they are asked about every
    # variation and mixture anew.
    "distil-gpu": replace(
        _REFINE,
        augment=AugmentConfig(rotate_deg=15.0, scale=0.2, shift=0.1, erase=0.2),
        epochs=48,
        batch_size=256,
        learning_rate=5e-4,
        warmup_epochs=2.0,
        teacher_share=0.6,
        teachers_watch=True,
        label_smoothing=0.0,
        clean_epochs=4,
    ),
    # The paper's table where there is only a CPU: narrower and shorter than what is shipped, two
    # hours of one core; `fer2013` is the recipe for where there is a GPU.
    "ablation-cpu": TrainConfig(
        network=NetworkConfig(widths=(32, 64, 128), depths=(1, 1, 1)), epochs=8
    ),
    # A look at whether new data trains at all: minutes on a CPU.
    "quick": TrainConfig(network=NetworkConfig(widths=(32, 64, 128), depths=(1, 1, 1)), epochs=5),
}
"""The recipes by name, as the command line takes them."""


def recipes_of_shape(shape: NetworkConfig) -> list[str]:
    """Return the recipes that can begin with the weights of a network of this shape.

    Args:
        shape: The network's configuration; classes and dropout do not matter.
    """

    def comparable(network: NetworkConfig) -> NetworkConfig:
        return replace(network, classes=shape.classes, dropout=shape.dropout)

    return [name for name, recipe in RECIPES.items() if comparable(recipe.network) == shape]
