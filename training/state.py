"""A run's state on disk: files that appear whole or not at all, and whose state it is."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from training.config import TrainConfig


class ResumeError(Exception):
    """The saved state is of another run; the message says what differs."""


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside its place, then move it there: a kill leaves the old one, or none.

    Args:
        path: Where the file belongs.
        write: Writes it to the path that it is given.

    Raises:
        OSError: It cannot be written.
    """
    part = path.with_name(path.name + ".part")
    write(part)
    part.replace(path)


def read_state(
    path: Path, identity: Mapping[str, str], device: torch.device
) -> dict[str, Any] | None:
    """Read the state of a run.

    Args:
        path: Where `write_whole` put it.
        identity: What a run must have in common with the one that saved it; its "recipe" is JSON,
            and a setting that did not exist then has its default.
        device: Where tensors go.

    Returns:
        The state, or None if there is no such file.

    Raises:
        ResumeError: It is of another run.
    """
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    for what, value in identity.items():
        saved = state["identity"].get(what)
        if saved != value and not (what == "recipe" and _same_recipe(saved, value)):
            raise ResumeError(
                f"{path} is of another {what}; give this run a folder of its own, or train "
                "as that run was started"
            )
    return state


def completed_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe, as JSON has it, with defaults for the settings that are newer than it."""
    return _completed(recipe, json.loads(json.dumps(dataclasses.asdict(TrainConfig()))))


def _same_recipe(saved: str, now: str) -> bool:
    return completed_recipe(json.loads(saved)) == completed_recipe(json.loads(now))


def _completed(given: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return settings with defaults for those that are missing, group by group."""
    groups = {
        name: _completed(given[name], default)
        for name, default in defaults.items()
        if isinstance(default, dict) and name in given
    }
    return defaults | given | groups
