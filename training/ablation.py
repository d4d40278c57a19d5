"""Ablation: trains the rows of the paper's table with several seeds.

All rows have the same recipe, budget and seeds. Finished runs are not repeated, and interrupted
ones are resumed. The best epoch is chosen on the validation split; figures are of validation and
test split.
"""

import dataclasses
import fcntl
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training.config import TrainConfig
from training.dataset import Dataset
from training.evaluate import predict, score
from training.machine import Machine
from training.model.checkpoint import Checkpoint, load_checkpoint
from training.model.manifest import Activation, InputSpec, NetworkConfig
from training.model.network import count_multiply_adds, count_parameters
from training.robustness import GEOMETRY, measure_curves
from training.run import Run, fit
from training.state import write_whole
from training.validation import BEST_FILE

RESULT_FILE = "result.json"

Results = dict[str, list[dict[str, Any]]]
"""For each row by name, a result for each seed."""


@dataclass(frozen=True)
class Row:
    """One setting of the paper's four switches."""

    stn: bool
    channel: bool
    spatial: bool
    activation: Activation

    @property
    def name(self) -> str:
        """The name of the row and of its folder, e.g. "stn+channel+spatial+gelu"."""
        parts = [n for n in ("stn", "channel", "spatial") if getattr(self, n)]
        return "+".join((*parts, self.activation))

    def applied_to(self, network: NetworkConfig) -> NetworkConfig:
        """Return the network with these switches."""
        return dataclasses.replace(
            network,
            stn=self.stn,
            channel_attention=self.channel,
            spatial_attention=self.spatial,
            activation=self.activation,
        )


ROWS: Final[tuple[Row, ...]] = (
    Row(False, False, False, "relu"),
    Row(False, False, False, "gelu"),
    Row(True, False, False, "gelu"),
    Row(False, True, False, "gelu"),
    Row(False, True, True, "gelu"),
    Row(True, True, True, "relu"),
    Row(True, True, True, "gelu"),
)
"""The rows of the paper's table."""


def ablate(
    data: Dataset,
    config: TrainConfig,
    seeds: Sequence[int],
    folder: Path,
    machine: Machine,
    on_run: Callable[[Run, str], Callable[[Run], None]],
) -> Results:
    """Train every row with every seed, except for finished runs.

    Several processes that call this with the same folder share the runs, e.g. on a large GPU or
    with one core each.

    Args:
        data: The training data.
        config: The recipe; its network's switches and seed are replaced.
        seeds: Two or more.
        folder: For runs and results.
        machine: Where to compute.
        on_run: Called with a run and its name; returns the `on_step` of `fit`.

    Returns:
        The results, for `training.significance`.

    Raises:
        Interrupted: A signal was received; finished runs and the state of this one are saved.
        ValueError: The machine has several processes (torchrun).
    """
    if machine.world > 1:
        raise ValueError(
            "each run of the ablation is for one process: start it without torchrun, and several "
            "times to train runs in parallel"
        )
    # Seed by seed, so that an interrupted ablation has results for all rows.
    runs = [(seed, row) for seed in seeds for row in ROWS]
    # First the runs that no other process has claimed; then wait for the others.
    for waits in (False, True):
        for seed, row in runs:
            place = folder / row.name / f"seed-{seed}"
            with _claimed(place, waits) as ours:
                if ours and not (place / RESULT_FILE).is_file():
                    network = row.applied_to(config.network)
                    recipe = dataclasses.replace(config, network=network, seed=seed)
                    run = Run(data, recipe, InputSpec(), place, machine)
                    run.restore()
                    fit(run, on_step=on_run(run, f"{row.name} seed {seed}"))
                    _keep(_result(run, seed), place / RESULT_FILE)
    return {
        row.name: [
            json.loads((folder / row.name / f"seed-{seed}" / RESULT_FILE).read_text())
            for seed in seeds
        ]
        for row in ROWS
    }


@contextmanager
def _claimed(place: Path, waits: bool) -> Iterator[bool]:
    """Lock a run's folder for this process; yields whether it succeeded.

    The system releases the lock when a process ends in any way.
    """
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def _result(run: Run, seed: int) -> dict[str, Any]:
    best = load_checkpoint(run.folder / BEST_FILE)
    best.network.to(run.machine.device)
    return {
        "seed": seed,
        "epochs": run.config.epochs,
        "parameters": count_parameters(best.network),
        "multiply_adds": count_multiply_adds(best.network, run.spec),
        "validation": _scores(best, run, "validation"),
        "test": _scores(best, run, "test"),
        "geometry": measure_curves(best, run.data.test, run.machine, GEOMETRY),
    }


def _keep(result: dict[str, Any], path: Path) -> None:
    text = json.dumps(result)
    write_whole(path, lambda part: part.write_text(text))


def _scores(checkpoint: Checkpoint, run: Run, part: str) -> dict[str, float]:
    split = getattr(run.data, part)
    scores = score(predict(checkpoint.network, split.faces, run.spec, run.machine), split.targets)
    return {"accuracy": scores.accuracy, "macro_f1": scores.macro_f1}
