"""Runs a chain: its stages one after another, or several at once.

Finished stages are not repeated. An interrupted stage is resumed from its saved state, with the
same result as an uninterrupted one. A record beside each stage has its settings and the hashes of
its inputs; a stage with other ones is refused.
"""

import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from training.average import average
from training.chain import Chain, ChainError, Stage
from training.dataset import Dataset, load
from training.export import export
from training.machine import Machine
from training.model.checkpoint import Checkpoint, load_checkpoint
from training.model.manifest import InputSpec, Manifest
from training.model.network import AttentionFER
from training.run import Interrupted, Run, fit
from training.state import write_whole
from training.validation import BEST_FILE, best_checkpoint

_STOPPED = 130


@dataclass(frozen=True)
class Place:
    """The inputs and the output folder of a chain.

    Attributes:
        data: FER2013's csv.
        votes: FER+'s votes; None if no stage needs them.
        folder: For runs and exports.
    """

    data: Path
    votes: Path | None
    folder: Path

    def read(self, stage: Stage) -> Dataset:
        """Read the data of a stage.

        Raises:
            ChainError: It needs votes, but there are none.
        """
        if stage.votes and self.votes is None:
            raise ChainError(f"{stage.name} learns FER+'s votes; give them by --votes")
        return load(self.data, self.votes if stage.votes else None)

    def output(self, stage: Stage) -> Path:
        """Return the file of an export, or of a run's best epoch."""
        if stage.recipe is None:
            return self.folder / f"{stage.name}.safetensors"
        return self.folder / stage.name / BEST_FILE

    def is_done(self, stage: Stage) -> bool:
        """Return whether a stage is done."""
        record, made = self._record(stage), self.output(stage)
        if not (record.is_file() and made.is_file()):
            return False
        return bool(json.loads(record.read_text())["done"])

    def files(self, reference: str, chain: Chain) -> list[Path]:
        """Return the checkpoints of a reference, whose stage is done."""
        name, _, task = reference.partition(":")
        stage = next(stage for stage in chain.stages if stage.name == name)
        if stage.recipe and task == "*":
            return sorted((self.folder / name).glob("best*.safetensors"))
        other = self.folder / name / f"best-{task}.safetensors"
        return [other if task and other.is_file() else self.output(stage)]

    def note(self, stage: Stage, inputs: Sequence[Path], *, done: bool, seconds: float) -> None:
        """Record the settings and inputs of a stage.

        Args:
            stage: The stage.
            inputs: The checkpoints that it reads.
            done: Whether it is done.
            seconds: Its duration in this process; added to the recorded one.

        Raises:
            ChainError: It was begun with other settings or inputs.
        """
        made_from = {
            "stage": dataclasses.asdict(stage),
            "inputs": [sha256(path.read_bytes()).hexdigest() for path in inputs],
        }
        made_from = json.loads(json.dumps(made_from))
        path = self._record(stage)
        found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        if found and {key: found.get(key) for key in made_from} != made_from:
            raise ChainError(
                f"{stage.name} was begun with other settings or inputs; remove {path} and what it "
                "made, or give another --folder"
            )
        taken = found.get("seconds", 0.0) + seconds
        text = json.dumps(made_from | {"done": done, "seconds": round(taken, 1)}, indent=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda part: part.write_text(text + "\n"))

    def _record(self, stage: Stage) -> Path:
        return self.folder / f"{stage.name}.json"


def make(
    stage: Stage,
    chain: Chain,
    place: Place,
    machine: Machine,
    on_run: Callable[[Run, str], Callable[[Run], None]] = lambda *_: lambda _: None,
    save_every_s: float = 120.0,
) -> None:
    """Run one stage, or resume it; the stages that it needs are done.

    Args:
        stage: Of the chain.
        chain: The chain.
        place: Its data and folder.
        machine: Where to compute.
        on_run: Called with a run and its name; returns the `on_step` of `fit`.
        save_every_s: Seconds between saves within an epoch.

    Raises:
        Interrupted: A signal was received; the state is saved.
        ChainError: It was begun with other settings or inputs, or there are no votes.
    """
    began = time.monotonic()
    data = place.read(stage)
    named = [*([stage.start] if stage.start else []), *stage.teachers]
    inputs = [path for reference in named for path in place.files(reference, chain)]
    runs = [best_checkpoint(place.folder / name, data) for name in stage.average]
    place.note(stage, inputs + runs, done=False, seconds=0.0)
    if stage.recipe is None:
        export(
            average([load_checkpoint(path) for path in runs]), place.output(stage), data, machine
        )
    else:
        given = [load_checkpoint(path) for path in inputs]
        start, teachers = (given[0], given[1:]) if stage.start else (None, given)
        folder = place.folder / stage.name
        run = Run(data, stage.config, InputSpec(), folder, machine, start, teachers)
        run.restore()
        fit(run, save_every_s=save_every_s, on_step=on_run(run, stage.name))
    place.note(stage, inputs + runs, done=True, seconds=time.monotonic() - began)


def reproduce(
    chain: Chain, place: Place, do: Callable[[Stage], None], say: Callable[[str], None], jobs: int
) -> None:
    """Run all unfinished stages of a chain, each as soon as the stages that it needs are done.

    Args:
        chain: The chain.
        place: Its data and folder.
        do: Runs one stage; called from `jobs` threads, or from this one if that is 1.
        say: Called with a line of text when a stage begins or ends.
        jobs: Number of stages at once.

    Raises:
        Interrupted: As from `do`; all other stages that were running have ended.
    """
    waiting = [stage for stage in chain.stages if not place.is_done(stage)]
    say(f"{chain.name}: {len(chain.stages) - len(waiting)} of {len(chain.stages)} stages are done")
    if jobs == 1:
        for stage in waiting:
            say(f"{stage.name} begins")
            do(stage)
        return
    running: dict[Future[None], Stage] = {}
    with ThreadPoolExecutor(jobs) as threads:
        while waiting or running:
            missing = {stage.name for stage in (*waiting, *running.values())}
            ready = [stage for stage in waiting if missing.isdisjoint(stage.needs)]
            for stage in ready[: jobs - len(running)]:
                say(f"{stage.name} begins")
                running[threads.submit(do, stage)] = stage
                waiting.remove(stage)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage = running.pop(future)
                future.result()
                say(f"{stage.name} is done")


class Subprocesses:
    """Runs stages in separate processes.

    SIGINT and SIGTERM are passed on as SIGTERM, at which a run saves its state. The processes have
    their own process groups, because the terminal's SIGINT could interrupt one during its imports.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Store the command.

        Args:
            command: Arguments of `python -m training`; the name of the stage is appended.
        """
        self._command, self._running = command, list[subprocess.Popen[bytes]]()
        self._handlers: dict[signal.Signals, Any] = {}
        self._stopped = False

    def __enter__(self) -> "Subprocesses":
        """Install the signal handlers."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._pass_on)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def __call__(self, stage: Stage) -> None:
        """Run one stage.

        Raises:
            Interrupted: It was stopped, and has saved its state.
            ChainError: It failed, and has printed why.
        """
        if self._stopped:
            raise Interrupted
        arguments = [sys.executable, "-m", "training", *self._command, stage.name]
        process = subprocess.Popen(arguments, process_group=0)
        self._running.append(process)
        if self._stopped:  # the signal was received between the two lines above
            process.terminate()
        status = process.wait()
        self._running.remove(process)
        if status == _STOPPED or self._stopped:
            raise Interrupted
        if status:
            raise ChainError(f"{stage.name} failed")

    def _pass_on(self, *_: object) -> None:
        self._stopped = True
        for process in self._running:
            process.terminate()


def estimate(chain: Chain, place: Place, machine: Machine, steps: int = 3) -> dict[str, float]:
    """Estimate the duration of each run on this machine, in seconds, from a few timed steps.

    Validation, exports and the teachers' forward passes before the first step are not included.

    Args:
        chain: The chain.
        place: Its data and folder.
        machine: Where to compute.
        steps: Number of timed steps, after one that is not timed.
    """
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for stage in chain.stages:
            if stage.recipe is None:
                continue
            data, config = place.read(stage), stage.config
            short = dataclasses.replace(config, teacher_share=0.0, teachers_watch=False)
            teachers: list[Checkpoint] = []
            if config.teachers_watch:
                short, teachers = config, _stand_ins(stage, chain, data)
            run = Run(data, short, InputSpec(), Path(folder), machine, teachers=teachers)
            each = _timed(run, steps)
            seconds[stage.name] = each * run.steps_per_epoch * config.epochs
    return seconds


def _timed(run: Run, steps: int) -> float:
    run.step()
    _ = run.loss_so_far  # waits for a GPU
    began = time.monotonic()
    for _step in range(steps):
        run.step()
    _ = run.loss_so_far
    return (time.monotonic() - began) / steps


def _stand_ins(stage: Stage, chain: Chain, data: Dataset) -> list[Checkpoint]:
    """Return untrained networks with the shapes and emotions of a run's teachers."""
    configs = {other.name: other.config for other in chain.stages if other.recipe}
    first = next(iter(configs.values()))
    found = []
    for reference in stage.teachers:
        name = reference.partition(":")[0]
        for task in (data, data.second) if stage.config.second_target else (data,):
            if task is not None:
                shape = configs.get(name, first).network
                shape = dataclasses.replace(shape, classes=len(task.emotions))
                with torch.no_grad():
                    network = AttentionFER(shape).eval()
                found.append(Checkpoint(network, Manifest(name, "0", shape, task.emotions)))
    return found
