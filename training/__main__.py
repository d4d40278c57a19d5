"""The command line of training: `python -m training COMMAND`, each with its --help."""

import argparse
import dataclasses
import json
import sys
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from training.ablation import ablate
from training.average import average
from training.chain import SHIPPED, Chain, ChainError, Stage, load_chain
from training.comparison import compare, tabulate_comparison
from training.config import RECIPES
from training.crops import read_crops
from training.dataset import DataError, Dataset, Split, load, with_emotions
from training.evaluate import predict, score
from training.export import ExportError, annotate, cost, export, measure
from training.machine import Machine, machine
from training.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.model.labels import FER2013_EMOTIONS, FERPLUS_EMOTIONS
from training.model.manifest import CheckpointError, InputSpec
from training.overrides import OverrideError, override
from training.overview import describe, describe_cache
from training.progress import ProgressBar
from training.reproduce import Place, Subprocesses, estimate, make, reproduce
from training.run import HISTORY_FILE, Interrupted, Run, fit
from training.samples import cached_files, kept_of
from training.significance import summarise, summarise_geometry
from training.state import ResumeError
from training.table import tabulate
from training.validation import BEST_FILE, best_checkpoint

_WEIGHTS = Path(__file__).parent.parent / "service/weights"
_SHIPPED = {
    emotions: _WEIGHTS / f"attention-fer-{name}.safetensors"
    for name, emotions in (("fer2013", FER2013_EMOTIONS), ("ferplus", FERPLUS_EMOTIONS))
}
_STARTS = {"finetune": _SHIPPED[FERPLUS_EMOTIONS]}
"""What a recipe begins with where no weights are given; others begin with random ones."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0 done, 2 a wrong argument or input, 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except Interrupted:
        print(
            f"\nstopped and saved; the same command resumes from {options.folder}", file=sys.stderr
        )
        return 130
    except (
        ChainError,
        CheckpointError,
        DataError,
        ExportError,
        OverrideError,
        ResumeError,
        ValueError,
    ) as error:
        print(f"training: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"training: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return status


def _train(options: argparse.Namespace) -> int:
    config = override(RECIPES[options.recipe], options.set)
    weights = options.weights or _STARTS.get(options.recipe)
    with machine(
        options.device,
        options.threads,
        compiles=options.compile,
        graphs=options.cuda_graph,
        deterministic=options.deterministic,
    ) as here:
        data = _read(options, shows=here.leads)
        start = load_checkpoint(weights) if weights else None
        if start and here.leads:
            name, version = start.manifest.name, start.manifest.version
            print(f"beginning with the weights of {name} {version}", file=sys.stderr)
        teachers = [load_checkpoint(path) for path in options.teachers]
        run = Run(data, config, InputSpec(), options.folder, here, start, teachers)
        if run.restore() and here.leads:
            print(f"resuming from {options.folder}, step {run.progress.step}", file=sys.stderr)
        with ProgressBar(run) as bar:
            fit(run, save_every_s=options.save_every, on_step=bar)
        if here.leads:
            _draw(run, here)
    return 0


def _draw(run: Run, here: Machine) -> None:
    # Imported here, not above: drawing needs matplotlib, and evaluating does not.
    from training.report import draw_confusion, draw_curves

    best = _on(here, load_checkpoint(run.folder / BEST_FILE))
    split = run.data.validation
    scores = score(predict(best.network, split.faces, run.spec, here), split.targets)
    draw_curves(run.progress.history, run.folder / "curves.png")
    draw_confusion(scores, run.data.emotions, run.folder / "confusion.png")
    print(f"best validation accuracy {scores.accuracy:.4f}, {best.manifest.version}")
    print(f"{run.folder}: {BEST_FILE}, {HISTORY_FILE}, curves.png, confusion.png")


def _evaluate(options: argparse.Namespace) -> int:
    with machine(options.device, options.threads) as here:
        data = _read(options, to_train=False)
        checkpoint = _checkpoint(options, data, here)
        data = _task_of(data, checkpoint)
        wild = _wild(options, checkpoint)
        figures = measure(checkpoint, data, here, wild) | {"cost": cost(checkpoint)}
        print(f"{checkpoint.manifest.name} {checkpoint.manifest.version}")
        print(tabulate(figures, checkpoint.manifest.emotions))
        if options.json:
            options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def _report(options: argparse.Namespace) -> int:
    from training.results import write_results

    with machine(options.device, options.threads) as here:
        data = _read(options, to_train=False)
        checkpoint = _checkpoint(options, data, here)
        data = _task_of(data, checkpoint)
        if not len(data.test):
            raise DataError(f"{options.data}: no faces for test, which a report is of")
        folder = options.out or Path("docs/results") / checkpoint.manifest.name
        write_results(checkpoint, data, folder, here, _wild(options, checkpoint))
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    return 0


def _ablate(options: argparse.Namespace) -> int:
    from training.results import write_ablation

    config = override(RECIPES[options.recipe], options.set)
    data, folder = _read(options), options.folder
    with ExitStack() as bars, machine(options.device, options.threads) as here:

        def show(run: Run, name: str) -> ProgressBar:
            bars.close()
            return bars.enter_context(ProgressBar(run, name))

        results = ablate(data, config, range(options.seeds), folder, here, show)
    wrote = write_ablation(results, config, options.out)
    print(f"{summarise(results)}\n\n{summarise_geometry(results)}")
    print(f"\n{options.out}: {', '.join(wrote)}")
    return 0


def _export(options: argparse.Namespace) -> int:
    options.out.parent.mkdir(parents=True, exist_ok=True)  # before minutes of work, not after
    data = _read(options)
    with machine(options.device, options.threads) as here:
        runs = [load_checkpoint(best_checkpoint(run, data)) for run in options.folder]
        done = export(average(runs), options.out, data, here)
    print(tabulate(dict(done.manifest.metrics), done.manifest.emotions))
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB, {done.manifest.version}")
    return 0


def _annotate(options: argparse.Namespace) -> int:
    data = _read(options)
    for path in options.checkpoint:
        with machine(options.device, options.threads) as here:
            before = _on(here, load_checkpoint(path))
            done = annotate(before, _learnt_by(before, data), here)
        weights = done.network.cpu().state_dict().values()
        if not all(torch.equal(w, w.half().to(w.dtype)) for w in weights):
            raise ExportError(f"{path}: not an exported checkpoint, its weights are not float16")
        save_checkpoint(path, done.network, done.manifest, torch.float16)
        print(tabulate(dict(done.manifest.metrics), done.manifest.emotions))
        print(f"{path}: {done.manifest.version}, the weights as they were")
    return 0


def _compare(options: argparse.Namespace) -> int:
    data = _read(options)
    with machine(options.device, options.threads) as here:
        named_only = not options.all_emotions
        rows = compare(options.checkpoint, data, options.wild, here, named_only=named_only)
    table = tabulate_comparison(rows)
    print(table)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "comparison.json").write_text(json.dumps(rows, indent=1) + "\n")
        (options.out / "comparison.md").write_text(table + "\n")
    return 0


def _wild(options: argparse.Namespace, checkpoint: Checkpoint) -> Split | None:
    manifest = checkpoint.manifest
    return (
        read_crops(options.wild, manifest.emotions, manifest.input_spec) if options.wild else None
    )


def _reproduce(options: argparse.Namespace) -> int:
    chain, place = load_chain(options.chain), Place(options.data, options.votes, options.folder)
    if options.plan:
        return _plan(chain, place, options)
    if options.only:
        chosen = [stage for stage in chain.stages if stage.name == options.only]
        if not chosen:
            raise ChainError(f"{chain.name} has no stage {options.only!r}")
        _make(chosen[0], chain, place, options)
        return 0

    def say(line: str) -> None:
        print(f"{datetime.now():%H:%M:%S} {line}", file=sys.stderr)

    if options.jobs == 1:
        reproduce(chain, place, lambda stage: _make(stage, chain, place, options), say, 1)
        return 0
    command = ["reproduce", options.chain, "--data", str(options.data)]
    command += ["--folder", str(options.folder), "--device", options.device]
    command += ["--votes", str(options.votes)] if options.votes else []
    command += ["--threads", str(options.threads)] if options.threads else []
    command += ["--cuda-graph"] if options.cuda_graph else []
    with Subprocesses([*command, "--only"]) as do:
        reproduce(chain, place, do, say, options.jobs)
    return 0


def _make(stage: Stage, chain: Chain, place: Place, options: argparse.Namespace) -> None:
    with (
        ExitStack() as bars,
        machine(options.device, options.threads, graphs=options.cuda_graph) as here,
    ):

        def show(run: Run, name: str) -> ProgressBar:
            return bars.enter_context(ProgressBar(run, name))

        make(stage, chain, place, here, show, options.save_every)


def _plan(chain: Chain, place: Place, options: argparse.Namespace) -> int:
    with machine(options.device, options.threads, graphs=options.cuda_graph) as here:
        seconds = estimate(chain, place, here)
    print(chain.about.strip())
    for stage in chain.stages:
        took = "" if stage.recipe is None else f"{seconds[stage.name] / 60:8.1f} min"
        state = "done" if place.is_done(stage) else ""
        print(f"{stage.name:24s} {stage.recipe or 'export':14s} {took:>12s}  {state}")
    left = sum(seconds.get(s.name, 0.0) for s in chain.stages if not place.is_done(s))
    print(f"{left / 3600:.1f} h of training are left, one run at a time")
    return 0


def _inspect(options: argparse.Namespace) -> int:
    checkpoint = load_checkpoint(options.checkpoint)
    size = options.checkpoint.stat().st_size
    print(json.dumps(dataclasses.asdict(checkpoint.manifest), indent=2))
    print(tabulate({"cost": cost(checkpoint)}, checkpoint.manifest.emotions))
    print(f"{size / 1e6:.2f} MB on disk")
    return 0


def _read(options: argparse.Namespace, *, to_train: bool = True, shows: bool = True) -> Dataset:
    """Read the data, with a progress bar if that takes longer, and print what is in it."""
    with tqdm(desc=f"reading {options.data.name}", unit_scale=True, leave=False, delay=1.0) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        data = load(options.data, options.votes, progress=show, to_train=to_train)
    if shows:
        lines = [*describe(data, to_train=to_train), *describe_cache(options.data)]
        print(*lines, sep="\n", file=sys.stderr)
    return data


def _cache(options: argparse.Namespace) -> int:
    files = cached_files() if options.data is None else kept_of(options.data)
    for path in files:
        size_mb = path.stat().st_size / 1e6
        if options.delete:
            path.unlink()
        print(f"{'deleted ' if options.delete else ''}{path}: {size_mb:.1f} MB")
    if not files:
        print("nothing is kept")
    return 0


def _on(here: Machine, checkpoint: Checkpoint) -> Checkpoint:
    checkpoint.network.to(here.device)
    return checkpoint


def _checkpoint(options: argparse.Namespace, data: Dataset, here: Machine) -> Checkpoint:
    """Return the given checkpoint, or the shipped one with the data's emotions."""
    return _on(here, load_checkpoint(options.checkpoint or _shipped(data)))


def _shipped(data: Dataset) -> Path:
    """Return the shipped checkpoint that names the data's emotions, and as few others as can be."""
    for emotions, path in _SHIPPED.items():
        if set(data.emotions) <= set(emotions):
            return path
    strange = ", ".join(name for name in data.emotions if name not in FERPLUS_EMOTIONS)
    raise DataError(
        f"no shipped checkpoint names {strange}; give --checkpoint FILE, for example one trained "
        "by --recipe finetune"
    )


def _task_of(data: Dataset, checkpoint: Checkpoint) -> Dataset:
    """Return the data's task that a checkpoint can be measured on, with its emotions as columns."""
    emotions = checkpoint.manifest.emotions
    exact = [task for task in (data, data.second) if task and task.emotions == emotions]
    return exact[0] if exact else with_emotions(data, emotions)


def _learnt_by(checkpoint: Checkpoint, data: Dataset) -> Dataset:
    """Return the task of the data with the checkpoint's emotions."""
    emotions = checkpoint.manifest.emotions
    for task in (data, data.second):
        if task and task.emotions == emotions:
            return task
    raise DataError(
        f"the data has {', '.join(data.emotions)}; the checkpoint names {', '.join(emotions)}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, summary: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary)
        added.set_defaults(run=run)
        return added

    def add_data(to: argparse.ArgumentParser) -> None:
        to.add_argument(
            "--data",
            type=Path,
            required=True,
            metavar="PATH",
            help="FER2013's csv, or a folder with a folder of pictures for each class",
        )
        to.add_argument("--votes", type=Path, metavar="CSV", help="FER+'s votes for that csv")
        to.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (%(default)s)")
        to.add_argument("--threads", type=int, help="CPU threads (one a core)")

    train = command("train", _train, "Train a recipe; the same command resumes it.")
    add_data(train)
    train.add_argument("--recipe", choices=sorted(RECIPES), default="fer2013")
    train.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="start from the weights of this checkpoint "
        "(finetune: from the shipped one for FER+'s emotions; others: from random ones)",
    )
    train.add_argument(
        "--teachers",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="checkpoints to learn from beside the labels, for recipes with a teacher_share",
    )
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting of the recipe, e.g. augment.mixup=0; repeatable",
    )
    train.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/fer2013"),
        metavar="DIR",
        help="where state and results go (%(default)s)",
    )
    train.add_argument(
        "--save-every",
        type=float,
        default=120.0,
        metavar="S",
        help="seconds between saves within an epoch (%(default)s)",
    )

    train.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="compile the network first (default: on CUDA only)",
    )
    train.add_argument(
        "--cuda-graph", action="store_true", help="record a step on CUDA once, then replay it"
    )
    train.add_argument(
        "--deterministic",
        action="store_true",
        help="use deterministic kernels on CUDA, where they exist",
    )

    evaluate = command("evaluate", _evaluate, "Score a checkpoint on validation and test faces.")
    add_data(evaluate)
    shipped = "default: the shipped checkpoint with the data's emotions"
    evaluate.add_argument("--checkpoint", type=Path, metavar="FILE", help=shipped)
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")

    report = command("report", _report, "Write a checkpoint's results as JSON and pictures.")
    add_data(report)
    report.add_argument("--checkpoint", type=Path, metavar="FILE", help=shipped)
    elsewhere = "faces from another source: an .npz of crops, or a folder of crops per emotion"
    for measuring in (evaluate, report):
        measuring.add_argument("--wild", type=Path, metavar="PATH", help=elsewhere)
    report.add_argument(
        "--out", type=Path, metavar="DIR", help="where to (docs/results/NAME OF THE CHECKPOINT)"
    )

    ablation = command("ablate", _ablate, "Train the paper's table; the same command resumes it.")
    add_data(ablation)
    ablation.add_argument("--recipe", choices=sorted(RECIPES), default="ablation-cpu")
    ablation.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    ablation.add_argument("--seeds", type=int, choices=range(2, 12), default=3, metavar="N")
    ablation.add_argument("--folder", type=Path, default=Path("runs/ablation"), metavar="DIR")
    ablation.add_argument(
        "--out",
        type=Path,
        default=Path("docs/results/ablation"),
        metavar="DIR",
        help="where the results go (%(default)s)",
    )

    exporting = command("export", _export, "Write the checkpoint to ship from runs' best epochs.")
    add_data(exporting)
    exporting.add_argument(
        "--folder",
        type=Path,
        nargs="+",
        default=[Path("runs/fer2013")],
        metavar="DIR",
        help="the run (runs/fer2013); of several from one start, the mean of their weights",
    )
    exporting.add_argument("--out", type=Path, required=True, metavar="FILE")

    annotating = command(
        "annotate", _annotate, "Update prior, temperatures and figures; weights stay unchanged."
    )
    add_data(annotating)
    annotating.add_argument("checkpoint", type=Path, nargs="+", metavar="FILE")

    comparing = command(
        "compare",
        _compare,
        "Compare checkpoints on validation faces and on another source's.",
    )
    add_data(comparing)
    comparing.add_argument("checkpoint", type=Path, nargs="+", metavar="FILE")
    comparing.add_argument("--wild", type=Path, required=True, metavar="PATH", help=elsewhere)
    comparing.add_argument(
        "--all-emotions",
        action="store_true",
        help="also answer emotions that a split's labels do not name, as the service does",
    )
    comparing.add_argument("--out", type=Path, metavar="DIR", help="also write the table there")

    chains = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.toml")))
    repeating = command(
        "reproduce",
        _reproduce,
        "Run a chain of runs and exports; the same command resumes it.",
    )
    repeating.add_argument("chain", metavar="NAME", help=f"{chains}, or a .toml file")
    add_data(repeating)
    repeating.add_argument("--folder", type=Path, default=Path("runs/chain"), metavar="DIR")
    repeating.add_argument("--jobs", type=int, default=1, metavar="N", help="stages at once")
    repeating.add_argument("--only", metavar="STAGE", help="make this stage alone")
    repeating.add_argument(
        "--plan", action="store_true", help="time some steps, say how long it will take, and stop"
    )
    repeating.add_argument("--save-every", type=float, default=120.0, metavar="S")
    repeating.add_argument("--cuda-graph", action="store_true", help="as of train")

    caching = command("cache", _cache, "List the faces that are kept for the next run.")
    caching.add_argument("--data", type=Path, metavar="PATH", help="of this data alone")
    caching.add_argument("--delete", action="store_true", help="delete them")

    inspect = command("inspect", _inspect, "Show what a checkpoint says about itself and costs.")
    ferplus = _WEIGHTS / "attention-fer-ferplus.safetensors"
    inspect.add_argument("--checkpoint", type=Path, default=ferplus, metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
