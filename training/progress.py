"""Shows the progress of a run: a bar, and a line for each epoch."""

import sys
from types import TracebackType
from typing import Any

from tqdm import tqdm

from training.run import Run


class ProgressBar:
    """A bar over all steps of a run, with loss, best validation score and remaining time.

    If the output is not a terminal, it writes one line per minute.
    """

    def __init__(self, run: Run, name: str | None = None) -> None:
        """Start at the run's current step.

        Args:
            run: The run.
            name: Shown before the bar if there are several runs.
        """
        self.run = run
        self.epochs_shown = len(run.progress.history)
        interval = 0.5 if sys.stderr.isatty() else 60.0
        self.bar = tqdm(
            total=run.config.epochs * run.steps_per_epoch,
            initial=run.progress.step,
            desc=name,
            unit="step",
            mininterval=interval,
            maxinterval=interval,
            dynamic_ncols=True,
            disable=not run.machine.leads,
        )

    def __enter__(self) -> "ProgressBar":
        """Return the bar itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the bar; its last state stays visible."""
        self.bar.close()

    def __call__(self, run: Run) -> None:
        """Advance by one step; `fit` calls this."""
        if not run.machine.leads:
            return
        history, within = run.progress.history, run.progress.step % run.steps_per_epoch
        if len(history) > self.epochs_shown:
            self.epochs_shown = len(history)
            self.bar.write(describe(history[-1]), file=sys.stderr)
        if within and within % 20 == 0:  # seldom, since reading the loss waits for the GPU
            best = " ".join(f"{a:.4f}" for a in run.progress.best.values()) or "-"
            self.bar.set_postfix(loss=f"{run.loss_so_far:.4f}", best=best, refresh=False)
        self.bar.update()


def describe(entry: dict[str, Any]) -> str:
    """Return one line for an epoch of the history."""
    named = (
        ("validation mean recall", entry["validation_mean_recall"]),
        ("accuracy", entry["validation_accuracy"]),
        ("macro-F1", entry["validation_macro_f1"]),
        ("second accuracy", entry["second_validation_accuracy"]),
    )
    validated = "".join(f"{name} {value:.4f}  " for name, value in named if value is not None)
    return (
        f"epoch {entry['epoch']:3d}  loss {entry['loss']:.4f}  {validated}"
        f"|theta - I| {entry['stn_distance']:.4f}  {entry['faces_per_second']:.0f} faces/s"
    )
