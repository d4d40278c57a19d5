"""The settings of a run, and the recipes as named constants.

A recipe is independent of the machine: data folders, device and processes are given elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from training.model.manifest import NetworkConfig


@dataclass(frozen=True)
class AugmentConfig:
    """How strongly training faces are augmented; each amount is drawn for each face.

    Attributes:
        flip: Probability of a left-right flip.
        rotate_deg: Largest rotation in either direction, in degrees.
        scale: Largest relative change of size in either direction.
        shift: Largest shift in either direction, as a share of the side.
        brightness: Largest shift of the grey levels, in standard deviations of the training set.
        contrast: Largest relative change of contrast.
        erase: Probability that a rectangle is erased (Zhong et al. 2017, arXiv:1708.04896).
        erase_area: Largest share of the face that is erased.
        gamma: Largest change of gamma in either direction, as a factor minus 1: imitates faces in
            shadow or glare.
        resolution: Probability that a face is reduced to a lower resolution.
        fewest_pixels: Shortest side of a reduced face, in pixels.
        noise: Largest standard deviation of added noise, in those of the training set.
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
        network: Shape of the network; the data sets its number of classes.
        augment: The augmentation.
        epochs: Passes over the training faces.
        batch_size: Faces per step, in all processes together.
        optimiser: AdamW, or SGD with Nesterov momentum.
        learning_rate: At its peak.
        momentum: Of SGD.
        weight_decay: On matrices and kernels only.
        warmup_epochs: Epochs in which the rate rises from 0; after them it falls on a cosine to 0.
        second_target: Weight of the data's second task in the loss, relative to 1 for the first
            one; 0 trains the first one only. A run with both tasks saves a checkpoint of each.
        label_share: The second task's share of the first one's targets, emotion by emotion:
            FER2013's label as further votes beside FER+'s. With `teachers_watch` also the weight of
            teachers with the second task's emotions, in the geometric mean of all teachers.
        balance: Power of the training labels' prior that is added to the logits in the loss, 0 to
            1; at 1 the network learns as if all emotions were equally frequent (balanced softmax,
            Ren et al. 2020, arXiv:2007.10740). The saved network has the prior in its last layer's
            bias, so that its probabilities are always those under the training prior.
        teacher_share: The teachers' share of each target (`training.distil`). The teachers are
            given on the command line.
        teachers_watch: Whether the teachers classify the student's augmented faces at every step,
            instead of each original face once.
        label_smoothing: Share of each target that is spread over all emotions.
        ema_decay: Of the moving average of weights, which is evaluated and saved.
        clip_norm: Largest norm of the gradient.
        clean_epochs: Number of last epochs whose only augmentation is the flip.
        stn_learning_rate: Multiplier of the spatial transformer's rate.
        stn_identity_penalty: Weight of the mean squared distance of theta from identity.
        validate_every: Epochs from one validation to the next; the last one is always validated.
            Only a validated epoch can be saved as the best one.
        seed: Of all random numbers.
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
        """Check the settings.

        Raises:
            ValueError: A setting is invalid; names it.
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


# Continues from the weights of `ferplus`. Its accuracy on its training faces (0.860) was little
# higher than on others (0.835): less regularisation, and more epochs without augmentation.
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
    # For own labels or few faces: continues from the weights of a shipped checkpoint, in
    # small batches, so that a few hundred faces give a few hundred steps.
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
    # For two CPU cores and two hours. AdamW, because SGD at the usual rates was still on its first
    # plateau after two epochs, and AdamW only for one.
    "fer2013": TrainConfig(),
    # Both tasks at once, from the weights of `fer2013` (--weights): FER+'s ten votes for a face and
    # FER2013's single label complement each other. More augmentation of position and size than in
    # `fer2013`, since detected faces vary more than that data's crops.
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
    # Continues from the best of several seeds of `refine`, with all of them as teachers
    # (--teachers). Their probabilities are half of each target, and less noisy than the labels.
    # Fewer epochs at a lower rate. No smoothing, since the teachers' probabilities are smooth.
    "distil": replace(
        _REFINE,
        epochs=18,
        learning_rate=5e-4,
        teacher_share=0.5,
        label_smoothing=0.0,
        clean_epochs=5,
    ),
    # One task from both label sets, for faces from other sources: continues from the weights of
    # `ferplus`, with FER2013's label as four further votes beside ten, all emotions weighted
    # equally, and augmentation as wide as photographs vary in pose, size, light and resolution.
    # The teachers are the shipped checkpoints of both tasks: the geometric mean of their
    # probabilities is better on faces from other sources than either.
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
    # `ferplus` for a large GPU, from random weights: deeper, close to the budget of 6 M parameters
    # and 350 M multiply-adds, and with the many epochs that random weights need.
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
    # Continues from a checkpoint of the shipped shape, with it and several of `ferplus-gpu` as
    # teachers. Those fit their training faces closely, so their probabilities of the original faces
    # teach little: they classify the augmented and mixed faces of every step.
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
    # For the paper's table on a CPU: narrower and fewer epochs than the shipped network, two hours
    # of one core. On a GPU, `fer2013` is the recipe for it.
    "ablation-cpu": TrainConfig(
        network=NetworkConfig(widths=(32, 64, 128), depths=(1, 1, 1)), epochs=8
    ),
    # A check whether new data can be trained on, in minutes on a CPU.
    "quick": TrainConfig(network=NetworkConfig(widths=(32, 64, 128), depths=(1, 1, 1)), epochs=5),
}
"""The recipes by name, for the command line."""


def recipes_of_shape(shape: NetworkConfig) -> list[str]:
    """Return the recipes that can start from the weights of a network of this shape.

    Args:
        shape: The network's configuration; classes and dropout do not matter.
    """

    def comparable(network: NetworkConfig) -> NetworkConfig:
        return replace(network, classes=shape.classes, dropout=shape.dropout)

    return [name for name, recipe in RECIPES.items() if comparable(recipe.network) == shape]
