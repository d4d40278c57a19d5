"""One network being trained: all that changes from step to step, and how it is kept.

Everything random in a step follows from the seed and the step's number, so that a run which was
cut and resumed does what an uncut one does. Not its duty: how long to go on (`training.loop`).
"""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.augment import augment, flip, mixup
from training.config import TrainConfig
from training.dataset import Dataset
from training.distil import Panel, soften
from training.ema import Ema
from training.evaluate import Scores, predict, score
from training.machine import Machine
from training.model.checkpoint import Checkpoint, digest, save_checkpoint
from training.model.manifest import InputSpec, Manifest, NetworkConfig
from training.model.network import AttentionFER
from training.model.preprocess import normalise
from training.model.stn import identity
from training.optimise import make_optimiser, set_rate
from training.tasks import (
    Task,
    blended,
    loss,
    network_of,
    start_from,
    tasks,
    train_split,
)
from training.whole_file import write_whole

STATE_FILE, BEST_FILE, HISTORY_FILE = "state.pt", "best.safetensors", "history.jsonl"
TAUGHT_FILE = "taught.pt"


def best_checkpoint(folder: Path, data: Dataset) -> Path:
    """Return the file of a run's best epoch by the labels of this data.

    The run's first task has `best.safetensors`; another has a file of its name beside it.
    """
    other = _other_file(folder, data)
    return other if other.is_file() else folder / BEST_FILE


def _other_file(folder: Path, data: Dataset) -> Path:
    return folder / f"best-{data.name}.safetensors"


class ResumeError(Exception):
    """The saved state is of another run; the message says what differs."""


@dataclass
class Progress:
    """Where a run stands; saved and restored as a whole.

    Attributes:
        step: Steps done.
        best: Best accuracy (or mean recall) on the validation split so far, 0 to 1, by data set's
            name.
        history: One entry an epoch done.
    """

    step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


class Run:
    """One network being trained: all that changes from step to step, and how to keep it."""

    def __init__(
        self,
        data: Dataset,
        config: TrainConfig,
        spec: InputSpec,
        folder: Path,
        machine: Machine,
        start: Checkpoint | None = None,
        teachers: Sequence[Checkpoint] = (),
    ) -> None:
        """Initialise the network by the recipe's seed, on the machine's device.

        Args:
            data: What to learn.
            config: The recipe.
            spec: What the network sees of a face.
            folder: Where state and results go.
            machine: Where to compute.
            start: Whose weights to begin with, instead of random ones.
            teachers: Whose answers have the recipe's share of the targets.

        Raises:
            ValueError: The batch cannot be shared equally among the processes, the data lacks
                the second task or the teachers that the recipe asks for, or `start` has
                another shape.
        """
        if config.batch_size % machine.world:
            raise ValueError(
                f"batch_size {config.batch_size} cannot be shared by {machine.world} processes"
            )
        if config.label_share:
            data = blended(data, config.label_share)
        self.learnt = tasks(data, config.second_target, config.balance)
        classes = self.learnt[-1].columns.stop
        network = dataclasses.replace(config.network, classes=classes)
        self.config = dataclasses.replace(config, network=network)
        self.data, self.spec, self.folder, self.machine = data, spec, folder, machine
        torch.manual_seed(config.seed)
        layout = {"memory_format": machine.memory_format}  # torch's own hints leave it out
        self.network = AttentionFER(network).to(machine.device, **layout)  # type: ignore[call-overload]
        self.start = start.manifest.version if start else "random weights"
        if start:
            start_from(self.network, self.learnt, start)
        self.ema = Ema(self.network, config.ema_decay)
        self.optimiser = make_optimiser(self.network, config)
        self.progress = Progress()
        # This epoch's sums of loss and of mean |theta - identity|: on the device, because
        # reading them at every step would make a GPU wait.
        self.sums = torch.zeros(2, device=machine.device)
        self.teachers = [digest(teacher.network) for teacher in teachers]
        self.train = train_split(self.learnt).to(machine.device)
        self.panel: Panel | None = None
        if config.teachers_watch:
            self.panel = Panel(self.learnt, teachers, config.teacher_share, machine)
        elif config.teacher_share or teachers:
            share, kept = config.teacher_share, folder / TAUGHT_FILE
            self.train = soften(self.train, self.learnt, teachers, share, machine, kept)
        self._shuffled: tuple[int, Tensor] | None = None
        self.module: nn.Module = self.network
        if machine.world > 1:
            self.module = DistributedDataParallel(self.network)
        if machine.compiles:
            self.module.compile()

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training split; the rest waits for the next shuffle."""
        return max(1, len(self.train) // self.config.batch_size)

    def step(self) -> None:
        """Take one step: draw, vary, forward, backward, update, average."""
        config, progress = self.config, self.progress
        epoch = progress.step // self.steps_per_epoch
        torch.manual_seed((config.seed * 1_000_003 + progress.step) * 1024 + self.machine.rank)
        images, targets = self._batch(epoch)
        set_rate(self.optimiser, config, progress.step / self.steps_per_epoch)
        self.module.train()
        images = images.contiguous(memory_format=self.machine.memory_format)
        if self.panel:
            targets = self.panel.blend(images, targets)
        with self.machine.autocast():
            logits, theta = self.module(images)
        missed = loss(logits.float(), targets, self.learnt, config.label_smoothing)
        moved = torch.zeros_like(missed) if theta is None else (theta - identity(theta))
        penalty = config.stn_identity_penalty * moved.square().mean()
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(missed + penalty)
        nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        self.optimiser.step()
        self.ema.update(self.network, progress.step)
        self.sums += torch.stack((missed.detach(), moved.detach().abs().mean()))
        progress.step += 1

    def _batch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Draw this process's share of the step's faces, varied as the recipe says."""
        config = self.config
        share = config.batch_size // self.machine.world
        within = self.progress.step % self.steps_per_epoch
        start = within * config.batch_size + self.machine.rank * share
        chosen = self._order(epoch)[start : start + share]
        images = normalise(self.train.faces[chosen], self.spec)
        targets = self.train.targets[chosen]
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

    def end_epoch(self, faces_per_second: float) -> dict[str, Any]:
        """Evaluate the averaged network, keep it if it is the best, and write the history."""
        progress = self.progress
        loss, moved = (self.sums / self.steps_per_epoch).tolist()
        self.sums.zero_()
        scores = [self._validate(task) for task in self.learnt]
        entry = {
            "epoch": progress.step // self.steps_per_epoch,
            "loss": loss,
            "stn_distance": moved,
            "validation_accuracy": scores[0].accuracy,
            "validation_macro_f1": scores[0].macro_f1,
            "validation_mean_recall": statistics.fmean(scores[0].recall),
            "validation_cross_entropy": scores[0].cross_entropy,
            "second_validation_accuracy": scores[1].accuracy if len(scores) > 1 else None,
            "faces_per_second": faces_per_second,
        }
        progress.history.append(entry)
        for task, score_now in zip(self.learnt, scores, strict=True):
            self._keep_best(task, score_now, entry)
        lines = "".join(json.dumps(line) + "\n" for line in progress.history)
        write_whole(self.folder / HISTORY_FILE, lambda part: part.write_text(lines))
        return entry

    def _validate(self, task: Task) -> Scores:
        split = task.data.validation
        logits = predict(self.ema.network, split.faces, self.spec, self.machine)
        return score(logits[:, task.columns], split.targets)

    def _keep_best(self, task: Task, scores: Scores, entry: dict[str, Any]) -> None:
        """Write the averaged network with this task's last layer, if none was better.

        The better one has the higher accuracy; where all emotions count the same, mean recall.
        """
        name, best = task.data.name, self.progress.best
        reached = statistics.fmean(scores.recall) if self.config.balance else scores.accuracy
        if reached > best.get(name, -1.0):
            best[name] = reached
            network = network_of(self.ema.network, task)
            first = task is self.learnt[0]
            path = self.folder / BEST_FILE if first else _other_file(self.folder, task.data)
            manifest = self._manifest(task.data, network.config, entry)
            save_checkpoint(path, network, manifest, torch.float32)

    def _manifest(self, data: Dataset, network: NetworkConfig, entry: dict[str, Any]) -> Manifest:
        return Manifest(
            name=f"attention-fer-{data.name}",
            version=f"epoch-{entry['epoch']}",
            network=network,
            emotions=data.emotions,
            input_spec=self.spec,
            metrics={"validation": entry},
            provenance={
                "recipe": dataclasses.asdict(self.config),
                "start": self.start,
                "teachers": self.teachers,
                "processes": self.machine.world,
                "data": data.describe(),
                "learnt": [task.data.name for task in self.learnt],
            },
        )

    def save(self) -> None:
        """Write all of the run's state; the file appears whole or not at all."""
        state = {
            "identity": self._identity(),
            "network": self.network.state_dict(),
            "ema": self.ema.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "sums": self.sums,
            "progress": dataclasses.asdict(self.progress),
        }
        write_whole(self.folder / STATE_FILE, lambda part: torch.save(state, part))

    def restore(self) -> bool:
        """Go on from the folder's saved state, if there is one.

        Returns:
            Whether there was one.

        Raises:
            ResumeError: It is of another recipe, data set or number of processes.
        """
        path = self.folder / STATE_FILE
        if not path.is_file():
            return False
        state = torch.load(path, map_location=self.machine.device, weights_only=True)
        for what, value in self._identity().items():
            if state["identity"].get(what) != value:
                raise ResumeError(
                    f"{path} is of another {what}; give this run a folder of its own, or train "
                    "as that run was started"
                )
        self.network.load_state_dict(state["network"])
        self.ema.network.load_state_dict(state["ema"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.sums.copy_(state["sums"])
        self.progress = Progress(**state["progress"])
        return True

    def _identity(self) -> dict[str, str]:
        return {
            "recipe": json.dumps(dataclasses.asdict(self.config)),
            "data set": self.data.fingerprint,
            "number of processes": str(self.machine.world),
            "checkpoint to start from": self.start,
            "set of teachers": ", ".join(self.teachers),
        }
