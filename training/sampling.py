"""Samples the faces of each step, normalised and augmented.

All randomness follows from the seed and the number of the step, so that an interrupted and resumed
run computes the same as an uninterrupted one.
"""

import torch
from torch import Tensor

from training.augment import augment, flip, mixup
from training.config import TrainConfig
from training.dataset import Split
from training.machine import Machine
from training.model.manifest import InputSpec
from training.model.preprocess import normalise


class Sampler:
    """Draws the batches of a run."""

    def __init__(
        self, train: Split, config: TrainConfig, spec: InputSpec, machine: Machine
    ) -> None:
        """Create the sampler.

        Args:
            train: The training faces, on the machine's device.
            config: The recipe.
            spec: The network's input.
            machine: Where to compute.
        """
        self.train, self.config, self.spec, self.machine = train, config, spec, machine
        self._shuffled: tuple[int, Tensor] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """The number of whole batches in the training split; the remaining faces are skipped."""
        return max(1, len(self.train) // self.config.batch_size)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Seed torch for a step, and return this process's share of its batch.

        Args:
            step: The number of the step, from 0.

        Returns:
            Images float32[n, 1, h, w] and targets float32[n, all classes].
        """
        config, machine = self.config, self.machine
        torch.manual_seed((config.seed * 1_000_003 + step) * 1024 + machine.rank)
        epoch, within = divmod(step, self.steps_per_epoch)
        share = config.batch_size // machine.world
        start = within * config.batch_size + machine.rank * share
        chosen = self._order(epoch)[start : start + share]
        return self._augmented(normalise(self.train.faces[chosen], self.spec), chosen, epoch)

    def _augmented(self, images: Tensor, chosen: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        config, targets = self.config, self.train.targets[chosen]
        if epoch >= config.epochs - config.clean_epochs:
            return flip(images, config.augment.flip), targets
        images = augment(images, config.augment)
        if config.augment.mixup > 0:
            return mixup(images, targets, config.augment.mixup)
        return images, targets

    def _order(self, epoch: int) -> Tensor:
        """Return an epoch's order of the faces, int64[n]; the same in all processes."""
        if self._shuffled is None or self._shuffled[0] != epoch:
            generator = torch.Generator().manual_seed(self.config.seed * 100_003 + epoch)
            order = torch.randperm(len(self.train), generator=generator)
            self._shuffled = epoch, order.to(self.machine.device)
        return self._shuffled[1]
