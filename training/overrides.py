"""Changes settings of a recipe on the command line: `augment.mixup=0`, `network.stn=false`."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any, TypeVar

from training.config import TrainConfig

_T = TypeVar("_T")


class OverrideError(Exception):
    """An override of an unknown setting, or with a wrong type; the message names it."""


def override(config: TrainConfig, assignments: Sequence[str]) -> TrainConfig:
    """Return the recipe with some settings changed.

    Args:
        config: A recipe.
        assignments: "KEY=VALUE" each, e.g. "network.stn=false". The value is JSON or a word.

    Raises:
        OverrideError: Names the assignment and what was expected.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        try:
            _collect(changes, config, assignment)
        except ValueError as error:
            raise OverrideError(f"{assignment!r}: {error}") from error
    # All at once, since some settings are only valid together, e.g. widths and depths.
    try:
        return _apply(config, changes)
    except ValueError as error:
        raise OverrideError(f"{', '.join(map(repr, assignments))}: {error}") from error


def _collect(changes: dict[str, Any], config: Any, assignment: str) -> None:
    """Parse one assignment and add it to the changes."""
    key, separator, text = assignment.partition("=")
    if not separator:
        raise ValueError("expected KEY=VALUE")
    *groups, name = key.split(".")
    for group in groups:
        config = _setting(config, group)
        if not dataclasses.is_dataclass(config):
            raise ValueError(f"{group} has no settings of its own")
        changes = changes.setdefault(group, {})
    changes[name] = _typed(name, _setting(config, name), _parse(text))


def _setting(config: Any, name: str) -> Any:
    names = [field.name for field in dataclasses.fields(config)]
    if name not in names:
        raise ValueError(f"no setting {name!r}; there are {', '.join(names)}")
    return getattr(config, name)


def _typed(name: str, current: Any, value: Any) -> Any:
    """Return the value with the type of the current one, or raise ValueError."""
    if dataclasses.is_dataclass(current):
        raise ValueError(f"{name} is a group; set one of its settings, {name}.NAME")
    if isinstance(current, float) and type(value) is int:
        return float(value)
    if type(value) is not type(current):
        raise ValueError(f"expected {type(current).__name__}, got {value!r}")
    return value


def _apply(config: _T, changes: dict[str, Any]) -> _T:
    values = {
        name: _apply(getattr(config, name), value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return dataclasses.replace(config, **values)  # type: ignore[type-var]


def _parse(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return tuple(value) if isinstance(value, list) else value
