"""The training step: forward, backward, update, moving average; the optimiser and its schedule."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn, optim
from torch.nn.parallel import DistributedDataParallel

from training.config import TrainConfig
from training.distil import Panel
from training.machine import Machine
from training.model.network import AttentionFER
from training.model.stn import identity
from training.tasks import Task, loss


class Step:
    """A network with everything that a step changes.

    Attributes:
        network: The network that is trained.
        ema: The moving average of its weights, which is evaluated and saved.
        optimiser: Of its parameters.
        sums: float32[2]: the sums of the loss and of the mean |theta - identity| over the steps
            since they were last zeroed. On the device, since reading them at every step would make
            a GPU wait.
    """

    def __init__(
        self,
        network: AttentionFER,
        learnt: tuple[Task, ...],
        config: TrainConfig,
        machine: Machine,
        panel: Panel | None = None,
    ) -> None:
        """Prepare to train a network, which is on the machine's device.

        Args:
            network: With its initial weights.
            learnt: The tasks, in the order of its logits.
            config: The recipe.
            machine: Where to compute.
            panel: Teachers that classify the images of every step; None without any.
        """
        self.network, self.learnt, self.config, self.machine = network, learnt, config, machine
        self.panel = panel
        self.ema = Ema(network, config.ema_decay)
        self.optimiser = make_optimiser(network, config)
        self.sums = torch.zeros(2, device=machine.device)
        self.module: nn.Module = network
        if machine.world > 1:
            self.module = DistributedDataParallel(network)
        if machine.compiles:
            self.module.compile()
        self._gradients: Callable[[Tensor, Tensor], Tensor] = self._propagate
        if machine.graphs:
            self._gradients = _Graph(self._propagate, network)

    def __call__(self, images: Tensor, targets: Tensor, step: int, epochs: float) -> None:
        """Take one step.

        Args:
            images: float32[n, 1, h, w], on the device.
            targets: float32[n, all classes].
            step: Its number, from 0.
            epochs: Epochs trained so far, with fractions.
        """
        set_rate(self.optimiser, self.config, epochs)
        self.module.train()
        images = images.contiguous(memory_format=self.machine.memory_format)
        if self.panel:
            targets = self.panel.blend(images, targets)
        figures = self._gradients(images, targets)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimiser.step()
        self.ema.update(self.network, step)
        self.sums += figures

    def _propagate(self, images: Tensor, targets: Tensor) -> Tensor:
        """Compute the gradients; returns the loss and the mean |theta - identity|, float32[2]."""
        config = self.config
        with self.machine.autocast():
            logits, theta = self.module(images)
        cross_entropy = loss(logits.float(), targets, self.learnt, config.label_smoothing)
        distance = torch.zeros_like(cross_entropy) if theta is None else theta - identity(theta)
        penalty = config.stn_identity_penalty * distance.square().mean()
        self.network.zero_grad(set_to_none=True)
        torch.autograd.backward(cross_entropy + penalty)
        return torch.stack((cross_entropy.detach(), distance.detach().abs().mean()))


class Ema:
    """Exponential moving average of weights and running statistics.

    It varies less than the weights themselves. The decay warms up as (1 + t) / (10 + t), so that
    the initial weights soon have no share in it.
    """

    def __init__(self, network: AttentionFER, decay: float) -> None:
        """Start from a copy of `network`, averaged with `decay` (0 to below 1) at each update."""
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: AttentionFER, step: int) -> None:
        """Move the average towards `network`, after step number `step`, from 0."""
        share = 1.0 - min(self.decay, (1.0 + step) / (10.0 + step))
        averaged, current = _floats(self.network), _floats(network)
        torch._foreach_lerp_(averaged, current, share)


def _floats(network: AttentionFER) -> list[Tensor]:
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]


class _Graph:
    """A forward and backward pass as one CUDA graph: recorded at the first step, then replayed.

    A step of a small network consists of many short kernels. Launching each of them takes the CPU
    longer than a large GPU needs to run it.
    """

    def __init__(self, run: Callable[[Tensor, Tensor], Tensor], network: AttentionFER) -> None:
        self._run, self._network = run, network
        self._recorded: tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor] | None = None

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        if self._recorded is None:
            self._recorded = self._record(images.clone(), targets.clone())
        graph, held_images, held_targets, figures = self._recorded
        held_images.copy_(images)
        held_targets.copy_(targets)
        graph.replay()
        return figures

    def _record(
        self, images: Tensor, targets: Tensor
    ) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor]:
        # The warm-up must leave no trace in running statistics and random generators, so that a
        # resumed run, which records again, computes the same as an uninterrupted one.
        buffers = [buffer.clone() for buffer in self._network.buffers()]
        drawn = torch.cuda.get_rng_state(images.device)
        side = torch.cuda.Stream(images.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(side):
            for _ in range(3):
                self._run(images, targets)
        torch.cuda.current_stream(images.device).wait_stream(side)
        self._network.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            figures = self._run(images, targets)
        for buffer, before in zip(self._network.buffers(), buffers, strict=True):
            buffer.copy_(before)
        torch.cuda.set_rng_state(drawn, images.device)
        return graph, images, targets, figures


def make_optimiser(network: AttentionFER, config: TrainConfig) -> optim.Optimizer:
    """Create the recipe's optimiser.

    Weight decay applies to matrices and kernels, not to biases, norms and the spatial transformer's
    head. Each group has a key `share`, its multiplier of the scheduled rate.

    Args:
        network: The network to train.
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
        optimiser: From `make_optimiser`.
        config: The recipe.
        progress: Epochs trained so far, with fractions.
    """
    rate = config.learning_rate * _factor(config, progress)
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]


def _factor(config: TrainConfig, progress: float) -> float:
    """Return the rate's factor: linear warm-up, then half a cosine to 0 (Loshchilov 2016)."""
    if progress < config.warmup_epochs:
        return progress / config.warmup_epochs
    left = max(config.epochs - config.warmup_epochs, 1e-9)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (progress - config.warmup_epochs) / left)))
