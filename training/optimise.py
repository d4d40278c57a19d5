"""The optimiser and its schedule."""

import math

from torch import nn, optim

from training.config import TrainConfig
from training.model.network import AttentionFER


def make_optimiser(network: AttentionFER, config: TrainConfig) -> optim.Optimizer:
    """Make the recipe's optimiser.

    Matrices and kernels decay; biases, norms and the spatial transformer's head do not. Each
    group carries `share`, its multiplier of the scheduled rate.

    Args:
        network: Whose parameters to train.
        config: The recipe.

    Returns:
        SGD with Nesterov momentum, or AdamW.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        share = config.stn_learning_rate if name.startswith("stn.") else 1.0
        decays = parameter.ndim > 1 and not name.startswith("stn.head")
        key = (share, config.weight_decay if decays else 0.0)
        groups.setdefault(key, []).append(parameter)
    parameters = [
        {"params": members, "share": share, "weight_decay": decay}
        for (share, decay), members in groups.items()
    ]
    if config.optimiser == "sgd":
        momentum = config.momentum
        return optim.SGD(parameters, config.learning_rate, momentum, nesterov=momentum > 0)
    return optim.AdamW(parameters, config.learning_rate)


def set_rate(optimiser: optim.Optimizer, config: TrainConfig, progress: float) -> None:
    """Set every group's learning rate for the next step.

    Args:
        optimiser: Made by `make_optimiser`.
        config: The recipe.
        progress: Epochs trained so far, with fractions.
    """
    rate = config.learning_rate * _factor(config, progress)
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]


def _factor(config: TrainConfig, progress: float) -> float:
    """Rise linearly over the warm-up, then fall on half a cosine to 0 (Loshchilov 2016)."""
    if progress < config.warmup_epochs:
        return progress / config.warmup_epochs
    left = max(config.epochs - config.warmup_epochs, 1e-9)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (progress - config.warmup_epochs) / left)))
