"""A run's state on disk: written atomically, and read only by the same run."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from training.config import TrainConfig


class ResumeError(Exception):
    """The saved state belongs to another run; the message says what differs."""


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file atomically: to a temporary file in the same folder, which is then renamed.

    If the process is killed, the old file remains.

    Args:
        path: The file.
        write: Writes the content to the path that is passed to it.

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
        path: Written by `write_whole`.
        identity: What must be equal in the run that saved the state. The "recipe" is JSON; settings
            that did not exist then have their defaults.
        device: For the tensors.

    Returns:
        The state; None if there is no such file.

    Raises:
        ResumeError: It belongs to another run.
    """
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    for what, value in identity.items():
        saved = state["identity"].get(what)
        if saved != value and not (what == "recipe" and _same_recipe(saved, value)):
            raise ResumeError(
                f"{path} belongs to a run with another {what}; use another folder, or the "
                "settings with which that run was started"
            )
    return state


def completed_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe, as in JSON, with defaults for settings that are newer than it."""
    return _completed(recipe, json.loads(json.dumps(dataclasses.asdict(TrainConfig()))))


def _same_recipe(saved: str, now: str) -> bool:
    return completed_recipe(json.loads(saved)) == completed_recipe(json.loads(now))


def _completed(given: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return settings with defaults for the missing ones, also in nested groups."""
    groups = {
        name: _completed(given[name], default)
        for name, default in defaults.items()
        if isinstance(default, dict) and name in given
    }
    return defaults | given | groups
