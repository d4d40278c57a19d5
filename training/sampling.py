"""The faces of each step: drawn, normalised, varied.

Everything random follows from the seed and the step's number, so that a run which was cut and
resumed does what an uncut one does.
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
        """Draw from faces on the machine's device, as the recipe says."""
        self.train, self.config, self.spec, self.machine = train, config, spec, machine
        self._shuffled: tuple[int, Tensor] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training split; the rest waits for the next shuffle."""
        return max(1, len(self.train) // self.config.batch_size)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Seed a step, and draw this process's share of its faces.

        Returns:
            Images float32[n, 1, h, w] and targets float32[n, all classes].
        """
        config, machine = self.config, self.machine
        torch.manual_seed((config.seed * 1_000_003 + step) * 1024 + machine.rank)
        epoch, within = divmod(step, self.steps_per_epoch)
        share = config.batch_size // machine.world
        start = within * config.batch_size + machine.rank * share
        chosen = self._order(epoch)[start : start + share]
        return self._varied(normalise(self.train.faces[chosen], self.spec), chosen, epoch)

    def _varied(self, images: Tensor, chosen: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        config, targets = self.config, self.train.targets[chosen]
        if epoch >= config.epochs - config.clean_epochs:
            return flip(images, config.augment.flip), targets
        images = augment(images, config.augment)
        if config.augment.mixup > 0:
            return mixup(images, targets, config.augment.mixup)
        return images, targets

    def _order(self, epoch: int) -> Tensor:
        """Return the order of the training faces in an epoch, int64[n], the same everywhere."""
        if self._shuffled is None or self._shuffled[0] != epoch:
            generator = torch.Generator().manual_seed(self.config.seed * 100_003 + epoch)
            order = torch.randperm(len(self.train), generator=generator)
            self._shuffled = epoch, order.to(self.machine.device)
        return self._shuffled[1]
