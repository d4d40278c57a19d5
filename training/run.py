"""One network being trained: `Run` joins its parts, and `fit` takes it to its last epoch.

sampling ─▶ step ─▶ (after an epoch) validation ─▶ best checkpoints, history
└──▶ state on disk, from which the run goes on as if it had not been cut
"""

import dataclasses
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from training.config import TrainConfig
from training.dataset import Dataset, Split
from training.distil import Panel, soften
from training.machine import Machine
from training.model.checkpoint import Checkpoint, digest
from training.model.manifest import InputSpec
from training.model.network import AttentionFER
from training.sampling import Sampler
from training.state import read_state, write_whole
from training.step import Step
from training.tasks import blended, start_from, tasks, train_split
from training.validation import Keeper, figures, validate

STATE_FILE, HISTORY_FILE, TAUGHT_FILE = "state.pt", "history.jsonl", "taught.pt"


class Interrupted(Exception):  # noqa: N818 -- not an error: somebody asked for it
    """The run was asked to stop; its state is saved and it can go on."""


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
    """One network being trained."""

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
        self.data = blended(data, config.label_share) if config.label_share else data
        self.learnt = tasks(self.data, config.second_target, config.balance)
        shape = dataclasses.replace(config.network, classes=self.learnt[-1].columns.stop)
        self.config = dataclasses.replace(config, network=shape)
        self.spec, self.folder, self.machine = spec, folder, machine
        self.start = start.manifest.version if start else "random weights"
        self.teachers = [digest(teacher.network) for teacher in teachers]
        self.progress = Progress()
        network = self._network(start)
        train, panel = self._taught(teachers)
        self.sampler = Sampler(train, self.config, spec, machine)
        self._step = Step(network, self.learnt, self.config, machine, panel)
        self.keeper = Keeper(folder, self.learnt, spec, config.balance > 0, self._provenance())

    def _network(self, start: Checkpoint | None) -> AttentionFER:
        torch.manual_seed(self.config.seed)
        layout = {"memory_format": self.machine.memory_format}  # torch's own hints leave it out
        network = AttentionFER(self.config.network)
        network.to(self.machine.device, **layout)  # type: ignore[call-overload]
        if start:
            start_from(network, self.learnt, start)
        return network

    def _taught(self, teachers: Sequence[Checkpoint]) -> tuple[Split, Panel | None]:
        """Return the training faces with what teachers say of them, or who is to be asked."""
        config, machine = self.config, self.machine
        train = train_split(self.learnt).to(machine.device)
        if config.teachers_watch:
            shares = config.teacher_share, config.label_share
            return train, Panel(self.learnt, teachers, shares[0], machine, part_share=shares[1])
        if config.teacher_share or teachers:
            share, kept = config.teacher_share, self.folder / TAUGHT_FILE
            train = soften(train, self.learnt, teachers, share, machine, kept)
        return train, None

    @property
    def network(self) -> AttentionFER:
        """The network being trained."""
        return self._step.network

    @property
    def averaged(self) -> AttentionFER:
        """The average of its weights, which is evaluated and kept."""
        return self._step.ema.network

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the training split."""
        return self.sampler.steps_per_epoch

    @property
    def loss_so_far(self) -> float:
        """Mean loss of this epoch's steps; reading it makes a GPU wait."""
        within = self.progress.step % self.steps_per_epoch
        return float(self._step.sums[0]) / max(1, within)

    def step(self) -> None:
        """Take one step."""
        progress = self.progress
        images, targets = self.sampler.batch(progress.step)
        self._step(images, targets, progress.step, progress.step / self.steps_per_epoch)
        progress.step += 1

    def end_epoch(self, faces_per_second: float) -> dict[str, Any]:
        """Evaluate the averaged network if it is due, keep it if it is the best; write history."""
        progress, config = self.progress, self.config
        loss, moved = (self._step.sums / self.steps_per_epoch).tolist()
        self._step.sums.zero_()
        epoch = progress.step // self.steps_per_epoch
        due = epoch % config.validate_every == 0 or epoch == config.epochs
        scores = validate(self.averaged, self.learnt, self.spec, self.machine) if due else []
        entry = {"epoch": epoch, "loss": loss, "stn_distance": moved} | figures(scores)
        entry["faces_per_second"] = faces_per_second
        progress.history.append(entry)
        if scores:
            self.keeper.keep(self.averaged, scores, entry, progress.best)
        lines = "".join(json.dumps(line) + "\n" for line in progress.history)
        write_whole(self.folder / HISTORY_FILE, lambda part: part.write_text(lines))
        return entry

    def save(self) -> None:
        """Write all of the run's state; the file appears whole or not at all."""
        state = {
            "identity": self._identity(),
            "network": self.network.state_dict(),
            "ema": self.averaged.state_dict(),
            "optimiser": self._step.optimiser.state_dict(),
            "sums": self._step.sums,
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
        state = read_state(path, self._identity(), self.machine.device)
        if state is None:
            return False
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["ema"])
        self._step.optimiser.load_state_dict(state["optimiser"])
        self._step.sums.copy_(state["sums"])
        self.progress = Progress(**state["progress"])
        return True

    def _provenance(self) -> dict[str, Any]:
        return {
            "recipe": dataclasses.asdict(self.config),
            "start": self.start,
            "teachers": self.teachers,
            "processes": self.machine.world,
            "learnt": [task.data.name for task in self.learnt],
        }

    def _identity(self) -> dict[str, str]:
        return {
            "recipe": json.dumps(dataclasses.asdict(self.config)),
            "data set": self.data.fingerprint,
            "number of processes": str(self.machine.world),
            "checkpoint to start from": self.start,
            "set of teachers": ", ".join(self.teachers),
        }


def fit(
    run: Run, *, save_every_s: float = 120.0, on_step: Callable[[Run], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Train until the recipe's last epoch.

    Args:
        run: Fresh or restored.
        save_every_s: Seconds between saves within an epoch; every epoch's end is saved too.
        on_step: Called after every step, and after every epoch, for showing progress.

    Returns:
        The history: one entry an epoch.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the state is saved.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    total = run.config.epochs * run.steps_per_epoch
    with _stop_signals() as stopped:
        saved = began = time.monotonic()
        first = run.progress.step
        while run.progress.step < total:
            run.step()
            ends = run.progress.step % run.steps_per_epoch == 0
            if ends and run.machine.leads:
                faces = (run.progress.step - first) * run.config.batch_size
                run.end_epoch(faces / (time.monotonic() - began))
            on_step(run)
            due = ends or stopped or time.monotonic() - saved > save_every_s
            if due and run.machine.leads:
                run.save()
                saved = time.monotonic()
            if ends:
                began, first = time.monotonic(), run.progress.step
            if stopped:
                raise Interrupted
    return run.progress.history


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the yielded list instead of dying of them in mid-step."""
    received: list[int] = []
    handlers = {
        number: signal.signal(number, lambda n, _: received.append(n))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
