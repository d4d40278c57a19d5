"""fit(): step after step and epoch after epoch, saved often enough, until the last or a signal.

Not its duty: what a step does (`training.run`).
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from training.run import Run


class Interrupted(Exception):  # noqa: N818 -- not an error: somebody asked for it
    """The run was asked to stop; its state is saved and it can go on."""


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
