"""The paper's claims as an experiment: its table, and a verdict on each claim.

Every row trains by one recipe and budget, over the same seeds; a run that is done is not done
again, and one that was cut goes on. Epochs are chosen on the validation split; figures are of
both splits.
"""

import dataclasses
import fcntl
import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training.config import TrainConfig
from training.dataset import Dataset
from training.evaluate import predict, score
from training.loop import fit
from training.machine import Machine
from training.model.checkpoint import Checkpoint, load_checkpoint
from training.model.network import Activation, NetworkConfig, count_multiply_adds, count_parameters
from training.model.preprocess import InputSpec
from training.robustness import GEOMETRY, measure_curves
from training.run import BEST_FILE, Run, write_whole

RESULT_FILE = "result.json"

Results = dict[str, list[dict[str, Any]]]
"""For each row, by name, a result a seed."""

# Two-sided 95 % quantiles of Student's t, by degrees of freedom.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Row:
    """One setting of the paper's four switches."""

    stn: bool
    channel: bool
    spatial: bool
    activation: Activation

    @property
    def name(self) -> str:
        """The row in words, e.g. "stn+channel+spatial+gelu"; also its folder."""
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

CLAIMS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "1. a spatial transformer first": (("stn+gelu", "gelu"),),
    "2. channel attention": (("channel+gelu", "gelu"),),
    "3. spatial attention": (("channel+spatial+gelu", "channel+gelu"),),
    "4. GELU": (("gelu", "relu"), ("stn+channel+spatial+gelu", "stn+channel+spatial+relu")),
}
"""For each claim the pairs of rows that differ by nothing else: with, without."""


@dataclass(frozen=True)
class Verdict:
    """What the seeds say of one claim.

    Attributes:
        claim: Which.
        comparison: The two rows.
        difference: Mean gain in test accuracy, paired by seed.
        low: Lower end of its 95 % interval.
        high: Upper end.
        says: "holds", "does not hold" (the opposite does) or "cannot be told".
    """

    claim: str
    comparison: str
    difference: float
    low: float
    high: float
    says: str


def ablate(
    data: Dataset,
    config: TrainConfig,
    seeds: Sequence[int],
    folder: Path,
    machine: Machine,
    on_run: Callable[[Run, str], Callable[[Run], None]],
) -> Results:
    """Train every row with every seed, as far as that is not done yet.

    The same call in several processes shares the runs among them: side by side on a large GPU,
    or one a core.

    Args:
        data: What to train on.
        config: The recipe; its network's switches and its seed are set here.
        seeds: Two or more.
        folder: Where runs and results are kept.
        machine: Where to compute.
        on_run: Given a run and its name, returns what `fit` calls after every step.

    Returns:
        The results, as `summarise` takes them.

    Raises:
        Interrupted: A signal came; everything so far is kept.
        ValueError: Several processes share the machine.
    """
    if machine.world > 1:
        raise ValueError(
            "the ablation's runs are small, one process each: start it without torchrun, several "
            "times if there is room"
        )
    # Seed by seed, so that a table cut short has all of its rows.
    runs = [(seed, row) for seed in seeds for row in ROWS]
    # First what nobody else is at; then what another process was at, waiting for it.
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
    """Hold a run's folder against other processes; yields whether it is ours.

    The system lets go of it when a process dies, however it dies.
    """
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def summarise(results: Results) -> str:
    """Lay out the table and the verdicts as Markdown.

    Args:
        results: From `ablate`.

    Returns:
        Two tables: rows with mean and standard deviation over seeds, and claims.
    """
    lines = [
        "| network | PublicTest | PrivateTest | macro-F1 | parameters | multiply-adds |",
        "|---|---|---|---|---|---|",
    ]
    for name, runs in results.items():
        cells = [_spread(runs, *key) for key in (("validation", "accuracy"), ("test", "accuracy"))]
        cells.append(_spread(runs, "test", "macro_f1"))
        cost = f"{runs[0]['parameters']:,} | {runs[0]['multiply_adds']:,}"
        lines.append(f"| {name} | {' | '.join(cells)} | {cost} |")
    lines += ["", "| claim | rows | gain | 95 % interval | |", "|---|---|---|---|---|"]
    lines += [
        f"| {v.claim} | {v.comparison} | {v.difference:+.4f} | {v.low:+.4f} to {v.high:+.4f} "
        f"| {v.says} |"
        for v in judge(results)
    ]
    return "\n".join(lines)


def judge(results: Results) -> list[Verdict]:
    """Compare the rows that each claim is about, paired by seed.

    Args:
        results: From `ablate`, two seeds or more.

    Returns:
        A verdict for each claim and pair of rows.
    """
    verdicts = []
    for claim, pairs in CLAIMS.items():
        for having, lacking in pairs:
            gains = [
                a["test"]["accuracy"] - b["test"]["accuracy"]
                for a, b in zip(results[having], results[lacking], strict=True)
            ]
            mean, low, high = interval(gains)
            says = "holds" if low > 0 else "does not hold" if high < 0 else "cannot be told"
            comparison = f"{having} against {lacking}"
            verdicts.append(Verdict(claim, comparison, mean, low, high, says))
    return verdicts


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return mean and 95 % confidence interval of a mean by Student's t.

    Args:
        values: 2 to 11 of them.
    """
    mean = statistics.fmean(values)
    half = _T95[len(values) - 2] * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


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


def _spread(runs: Sequence[dict[str, Any]], part: str, figure: str) -> str:
    values = [run[part][figure] for run in runs]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.4f} ± {spread:.4f}"
