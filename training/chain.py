"""Chains: the runs that produce a checkpoint, declared in a file, in the order of their inputs.

about = "What it makes."
extends = "ferplus"              # another chain, whose stages come first

[run.taught]
recipe = "distil"
set = ["epochs=4"]               # as `train --set`
seeds = [0, 1]                   # two stages, taught-0 and taught-1
votes = true                     # FER+'s votes on FER2013's csv; false for its labels alone
start = "both"                   # a stage; without it, random weights
teachers = ["seed-*", "both:*"]  # stages by pattern; after a colon one task, or all (*)

[export.mean]
average = ["taught-*"]           # exports the mean of these runs' best epochs
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

from training.config import RECIPES, TrainConfig
from training.overrides import OverrideError, override

SHIPPED: Final = Path(__file__).parent / "chains"
_KEYS: Final = {
    "run": {
        "recipe": str, "set": list, "seeds": list, "votes": bool, "start": str, "teachers": list,
    },
    "export": {"average": list, "votes": bool},
}  # fmt: skip


class ChainError(Exception):
    """The chain is invalid, or a stage failed; the message says why."""


@dataclass(frozen=True)
class Stage:
    """One run, or one export.

    Attributes:
        name: Of the stage, and of its folder or file.
        recipe: Of a run; None for an export.
        settings: Changes of the recipe, "KEY=VALUE" each.
        votes: Whether the labels are FER+'s votes.
        start: The stage with the initial weights of a run, optionally with a colon and a task.
        teachers: The stages with a run's teachers, in the same form.
        average: The runs that an export averages.
    """

    name: str
    recipe: str | None = None
    settings: tuple[str, ...] = ()
    votes: bool = True
    start: str | None = None
    teachers: tuple[str, ...] = ()
    average: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of the stages that must be done before."""
        named = ((self.start,) if self.start else ()) + self.teachers + self.average
        return tuple(dict.fromkeys(reference.partition(":")[0] for reference in named))

    @property
    def config(self) -> TrainConfig:
        """The recipe of a run, with its settings."""
        return override(RECIPES[self.recipe or ""], self.settings)


@dataclass(frozen=True)
class Chain:
    """Stages, each after those that it needs."""

    name: str
    about: str
    stages: tuple[Stage, ...]


def load_chain(name: str) -> Chain:
    """Read a chain.

    Args:
        name: The name of a file in `training/chains`, or the path of another .toml file.

    Raises:
        ChainError: The chain does not exist or is invalid; names the stage.
    """
    path = Path(name) if name.endswith(".toml") else SHIPPED / f"{name}.toml"
    try:
        declared = tomllib.loads(path.read_text())
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.toml")))
        raise ChainError(f"no chain {name!r}; there are {known}") from error
    except ValueError as error:
        raise ChainError(f"{path}: {error}") from error
    if strange := declared.keys() - {"about", "extends", "run", "export"}:
        raise ChainError(f"{path}: {min(strange)!r} is unknown")
    before = load_chain(declared["extends"]).stages if "extends" in declared else ()
    added = [stage for kind in _KEYS for stage in _stages(kind, declared.get(kind, {}))]
    names = [stage.name for stage in (*before, *added)]
    if twice := [each for each in names if names.count(each) > 1]:
        raise ChainError(f"{path}: two stages are named {twice[0]}")
    resolved = [_resolved(stage, names) for stage in (*before, *added)]
    return Chain(path.stem, str(declared.get("about", "")), _ordered(resolved))


def _stages(kind: str, declared: Mapping[str, Mapping[str, Any]]) -> list[Stage]:
    stages = []
    for name, fields in declared.items():
        for key, value in fields.items():
            if not isinstance(value, _KEYS[kind].get(key, ())):
                raise ChainError(f"{kind}.{name}: {key!r} is unknown or of the wrong type")
        seeds = fields.get("seeds", [None])
        stages += [_stage(kind, name, fields, seed) for seed in seeds]
    return stages


def _stage(kind: str, name: str, fields: Mapping[str, Any], seed: int | None) -> Stage:
    votes = fields.get("votes", True)
    if kind == "export":
        return Stage(name, votes=votes, average=tuple(fields.get("average", ())))
    settings = [*fields.get("set", ()), *([] if seed is None else [f"seed={seed}"])]
    stage = Stage(
        name if seed is None else f"{name}-{seed}",
        recipe=fields.get("recipe", ""),
        settings=tuple(settings),
        votes=votes,
        start=fields.get("start"),
        teachers=tuple(fields.get("teachers", ())),
    )
    if stage.recipe not in RECIPES:
        raise ChainError(f"run.{name}: no recipe {stage.recipe!r}")
    try:
        _ = stage.config
    except OverrideError as error:
        raise ChainError(f"run.{name}: {error}") from error
    return stage


def _resolved(stage: Stage, names: Sequence[str]) -> Stage:
    """Return a stage whose patterns are replaced by the names of the matching stages."""
    start = _matching(stage, (stage.start,), names)[0] if stage.start else None
    return Stage(
        stage.name, stage.recipe, stage.settings, stage.votes, start,
        _matching(stage, stage.teachers, names), _matching(stage, stage.average, names),
    )  # fmt: skip


def _matching(stage: Stage, references: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for reference in references:
        pattern, colon, task = reference.partition(":")
        matching = [name for name in names if fnmatch(name, pattern) and name != stage.name]
        if not matching:
            raise ChainError(f"{stage.name}: needs {pattern!r}, which no other stage is named")
        found += [name + colon + task for name in matching]
    return tuple(found)


def _ordered(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    done: list[Stage] = []
    waiting = list(stages)
    while waiting:
        made = {stage.name for stage in done}
        ready = [stage for stage in waiting if made.issuperset(stage.needs)]
        if not ready:
            cycle = ", ".join(stage.name for stage in waiting)
            raise ChainError(f"{cycle}: each needs another one of these first")
        done += ready
        waiting = [stage for stage in waiting if stage not in ready]
    return tuple(done)
