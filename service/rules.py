"""Rules that parse and check the text of a setting."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

_NUMBERED_GPU = re.compile(r"cuda:(0|[1-9][0-9]{0,2})")
_VISIBLE = re.compile(r"[!-~]+")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")


def rule(
    parse: Callable[[str], Any], expected: str, meaning: str, *, secret: bool = False
) -> dict[str, Any]:
    """Return a field's metadata.

    Args:
        parse: Returns the value of a text, or raises ValueError.
        expected: Describes the valid texts, for the error message.
        meaning: Describes the setting.
        secret: Whether messages must not contain the text.
    """
    return {"parse": parse, "expected": expected, "meaning": meaning, "secret": secret}


def integer(low: int, high: int, meaning: str) -> dict[str, Any]:
    """Return the rule for a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        value = int(text, 10)
        if not low <= value <= high:
            raise ValueError
        return value

    return rule(parse, f"a whole number from {low} to {high}", meaning)


def number(low: float, high: float, meaning: str) -> dict[str, Any]:
    """Return the rule for a number from `low` to `high`."""

    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:  # false for NaN too
            raise ValueError
        return value

    return rule(parse, f"a number from {low:g} to {high:g}", meaning)


def auto_or(other: dict[str, Any]) -> dict[str, Any]:
    """Return the rule for "auto", whose value is None, or a text of the rule `other`."""

    def parse(text: str) -> Any:
        return None if text.lower() == "auto" else other["parse"](text)

    return other | {"parse": parse, "expected": f"auto or {other['expected']}"}


def choice(
    *names: str, meaning: str, formerly: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Return the rule for one of `names`; upper and lower case are equal.

    Args:
        names: The valid texts.
        meaning: Describes the setting.
        formerly: Old names that are still accepted, and their new names.
    """

    def parse(text: str) -> str:
        name = formerly.get(text.lower(), text.lower())
        if name not in names:
            raise ValueError
        return name

    return rule(parse, f"one of {', '.join(names)}", meaning)


def read_device(text: str) -> str:
    """Read auto, cpu, cuda, cuda:N, or several different cuda:N."""
    names = [part.strip() for part in text.split(",")]
    numbered = all(_NUMBERED_GPU.fullmatch(name) for name in names)
    if text not in ("auto", "cpu", "cuda") and not (numbered and len(set(names)) == len(names)):
        raise ValueError
    return ",".join(names)


def read_prior(text: str) -> str:
    """Read a prior's name, or a text with shares, which is checked against the checkpoint later."""
    name = text.strip().lower()
    if name in ("auto", "uniform", "training", "balanced"):
        return name
    if ":" not in text:
        raise ValueError
    return text


def read_text(text: str) -> str:
    """Read a text that is not blank."""
    if not text.strip():
        raise ValueError
    return text


def read_path(content: str) -> Path:
    """Read a path."""
    return Path(read_text(content))


def api_keys(content: str) -> tuple[str, ...]:
    """Read keys separated by commas: 16 to 256 visible ASCII characters each."""
    keys = _parts(content)
    if not all(16 <= len(key) <= 256 and _VISIBLE.fullmatch(key) for key in keys):
        raise ValueError
    return keys


def paths(content: str) -> tuple[str, ...]:
    """Read URL paths separated by commas; may be empty."""
    found = _parts(content)
    if not all(part.startswith("/") for part in found):
        raise ValueError
    return found


def origins(content: str) -> tuple[str, ...]:
    """Read origins of web pages separated by commas, or *; may be empty."""
    found = _parts(content)
    if found != ("*",) and not all(map(_ORIGIN.fullmatch, found)):
        raise ValueError
    return found


def _parts(content: str) -> tuple[str, ...]:
    return tuple(part for piece in content.split(",") if (part := piece.strip()))
