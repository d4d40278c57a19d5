"""A training run: `Run` connects its parts, and `fit` trains to the last epoch.

sampling ─▶ step ─▶ (after an epoch) validation ─▶ best checkpoints, history
└──▶ state on disk, from which an interrupted run resumes to the same result
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


class Interrupted(Exception):  # noqa: N818 -- not an error: the user stopped the run
    """The run was stopped by a signal; its state is saved, and it can be resumed."""


@dataclass
class Progress:
    """The progress of a run; saved and restored with its state.

    Attributes:
        step: Number of finished steps.
        best: Best accuracy (or mean recall) on the validation split so far, 0 to 1, by the name of
            the task's data set.
        history: One entry for each finished epoch.
    """

    step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


class Run:
    """A network in training, with its data, state and results."""

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
        """Initialise the network with the recipe's seed, on the machine's device.

        Args:
            data: The training data.
            config: The recipe.
            spec: The network's input.
            folder: For state and results.
            machine: Where to compute.
            start: The initial weights; None for random ones.
            teachers: Their probabilities have the recipe's `teacher_share` of the targets.

        Raises:
            ValueError: The batch size is no multiple of the number of processes, the recipe needs a
                second task or teachers that are not given, or `start` has another network shape.
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
        layout = {"memory_format": self.machine.memory_format}  # missing in torch's type hints
        network = AttentionFER(self.config.network)
        network.to(self.machine.device, **layout)  # type: ignore[call-overload]
        if start:
            start_from(network, self.learnt, start)
        return network

    def _taught(self, teachers: Sequence[Checkpoint]) -> tuple[Split, Panel | None]:
        """Return the training faces, with the teachers' share of the targets or with a panel."""
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
        """The network that is trained."""
        return self._step.network

    @property
    def averaged(self) -> AttentionFER:
        """The moving average of its weights, which is evaluated and saved."""
        return self._step.ema.network

    @property
    def steps_per_epoch(self) -> int:
        """The number of whole batches in the training split."""
        return self.sampler.steps_per_epoch

    @property
    def loss_so_far(self) -> float:
        """The mean loss of this epoch's steps; reading it waits for the GPU."""
        within = self.progress.step % self.steps_per_epoch
        return float(self._step.sums[0]) / max(1, within)

    def step(self) -> None:
        """Take one step."""
        progress = self.progress
        images, targets = self.sampler.batch(progress.step)
        self._step(images, targets, progress.step, progress.step / self.steps_per_epoch)
        progress.step += 1

    def end_epoch(self, faces_per_second: float) -> dict[str, Any]:
        """Validate the averaged network if due, save it if it is the best, and write the history.

        Args:
            faces_per_second: Of this epoch's training, for the history.

        Returns:
            The epoch's entry of the history.
        """
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
        """Save the run's state; the file is replaced atomically."""
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
        """Restore the saved state from the folder, if there is one.

        Returns:
            Whether there was one.

        Raises:
            ResumeError: It belongs to another recipe, data set, number of processes, start or set
                of teachers.
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
        run: New or restored.
        save_every_s: Seconds between saves within an epoch. The state is also saved after each
            epoch.
        on_step: Called after every step; shows the progress.

    Returns:
        The history: one entry for each epoch.

    Raises:
        Interrupted: SIGINT or SIGTERM was received; the state is saved.
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
    """Collect SIGINT and SIGTERM in the yielded list, so that the current step can finish."""
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
