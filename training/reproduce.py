"""Making a chain: stage after stage, or several at once; what is done is not done again.

A stage that was cut goes on where it was saved, and the whole ends as an uncut one does. Beside
each stage lies a record of what it was made from; a stage of other settings or inputs is refused
instead of mixed.
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
    """Where a chain is made.

    Attributes:
        data: FER2013's csv.
        votes: FER+'s votes, where a stage learns them.
        folder: Where runs and exports go.
    """

    data: Path
    votes: Path | None
    folder: Path

    def read(self, stage: Stage) -> Dataset:
        """Read what a stage learns from.

        Raises:
            ChainError: It needs votes, and there are none.
        """
        if stage.votes and self.votes is None:
            raise ChainError(f"{stage.name} learns FER+'s votes; give them by --votes")
        return load(self.data, self.votes if stage.votes else None)

    def output(self, stage: Stage) -> Path:
        """Return an export's file, or the best epoch's of a run."""
        if stage.recipe is None:
            return self.folder / f"{stage.name}.safetensors"
        return self.folder / stage.name / BEST_FILE

    def is_done(self, stage: Stage) -> bool:
        """Tell whether a stage is done."""
        record, made = self._record(stage), self.output(stage)
        if not (record.is_file() and made.is_file()):
            return False
        return bool(json.loads(record.read_text())["done"])

    def files(self, reference: str, chain: Chain) -> list[Path]:
        """Return the checkpoints that a reference names, once its stage is done."""
        name, _, task = reference.partition(":")
        stage = next(stage for stage in chain.stages if stage.name == name)
        if stage.recipe and task == "*":
            return sorted((self.folder / name).glob("best*.safetensors"))
        other = self.folder / name / f"best-{task}.safetensors"
        return [other if task and other.is_file() else self.output(stage)]

    def note(self, stage: Stage, inputs: Sequence[Path], *, done: bool, seconds: float) -> None:
        """Record what a stage is made from.

        Raises:
            ChainError: It was begun with something else.
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
    """Make one stage, or go on with it; what it needs is done.

    Args:
        stage: Of the chain.
        chain: Which.
        place: Where data and results are.
        machine: Where to compute.
        on_run: Given a run and its name, returns what `fit` calls after every step.
        save_every_s: Seconds between saves within an epoch.

    Raises:
        Interrupted: A signal came; the state is saved.
        ChainError: It was begun with something else, or there are no votes.
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
    """Make all of a chain that is not done, each stage as soon as what it needs is there.

    Args:
        chain: What to make.
        place: Where data and results are.
        do: Makes one stage; called from `jobs` threads, or from this one if that is 1.
        say: Told of each stage that begins or ends.
        jobs: Stages at once.

    Raises:
        Interrupted: As from `do`; the stages that others were at have ended.
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
    """Makes stages in processes of their own.

    SIGINT and SIGTERM reach them as SIGTERM, at which a run saves; a terminal's own SIGINT, which
    would interrupt one that is still importing, does not.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Prepare.

        Args:
            command: Arguments of `python -m training` that make the stage whose name follows.
        """
        self._command, self._running = command, list[subprocess.Popen[bytes]]()
        self._handlers: dict[signal.Signals, Any] = {}
        self._stopped = False

    def __enter__(self) -> "Subprocesses":
        """Take the signals over."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._pass_on)
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def __call__(self, stage: Stage) -> None:
        """Make one stage.

        Raises:
            Interrupted: It was stopped and has saved its state.
            ChainError: It failed; it has said why.
        """
        if self._stopped:
            raise Interrupted
        arguments = [sys.executable, "-m", "training", *self._command, stage.name]
        process = subprocess.Popen(arguments, process_group=0)
        self._running.append(process)
        if self._stopped:  # the signal came between the two lines above
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
    """Return the seconds that each run will take here, alone, from a few timed steps.

    Not counted: validation, exports, and what teachers are asked before the first step.

    Args:
        chain: Which.
        place: Where its data is.
        machine: Where it would compute.
        steps: How many to time, after one that is not counted.
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
    """Return networks that know nothing, of the shapes and emotions of a run's teachers."""
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
