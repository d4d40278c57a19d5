"""How the text of one setting is read, and what is expected of it.

Not its duty: which settings there are (`service.config`).
"""

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
        parse: Turns the text into the value; raises ValueError where it cannot.
        expected: What the text has to be, for the error message.
        meaning: What the setting is for.
        secret: Whether the text must not be shown.
    """
    return {"parse": parse, "expected": expected, "meaning": meaning, "secret": secret}


def integer(low: int, high: int, meaning: str) -> dict[str, Any]:
    """Return the rule of a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        value = int(text, 10)
        if not low <= value <= high:
            raise ValueError
        return value

    return rule(parse, f"a whole number from {low} to {high}", meaning)


def number(low: float, high: float, meaning: str) -> dict[str, Any]:
    """Return the rule of a number from `low` to `high`."""

    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:  # also refuses NaN, which compares false
            raise ValueError
        return value

    return rule(parse, f"a number from {low:g} to {high:g}", meaning)


def auto_or(other: dict[str, Any]) -> dict[str, Any]:
    """Return the rule of "auto", which is None, or what `other` reads."""

    def parse(text: str) -> Any:
        return None if text.lower() == "auto" else other["parse"](text)

    return other | {"parse": parse, "expected": f"auto or {other['expected']}"}


def choice(
    *names: str, meaning: str, formerly: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Return the rule of one of `names`, in any case.

    Args:
        names: What it may be.
        meaning: What the setting is for.
        formerly: Old names that are still taken, and what they are now.
    """

    def parse(text: str) -> str:
        name = formerly.get(text.lower(), text.lower())
        if name not in names:
            raise ValueError
        return name

    return rule(parse, f"one of {', '.join(names)}", meaning)


def read_device(text: str) -> str:
    """Read auto, cpu, cuda, cuda:N, or several distinct ones of the last."""
    names = [part.strip() for part in text.split(",")]
    numbered = all(_NUMBERED_GPU.fullmatch(name) for name in names)
    if text not in ("auto", "cpu", "cuda") and not (numbered and len(set(names)) == len(names)):
        raise ValueError
    return ",".join(names)


def read_text(text: str) -> str:
    """Read a text that is not blank."""
    if not text.strip():
        raise ValueError
    return text


def read_path(content: str) -> Path:
    """Read a path."""
    return Path(read_text(content))


def api_keys(content: str) -> tuple[str, ...]:
    """Read keys between commas: visible ASCII, of a length that cannot be guessed."""
    keys = _parts(content)
    if not all(16 <= len(key) <= 256 and _VISIBLE.fullmatch(key) for key in keys):
        raise ValueError
    return keys


def paths(content: str) -> tuple[str, ...]:
    """Read paths of URLs between commas; none where there is nothing."""
    found = _parts(content)
    if not all(part.startswith("/") for part in found):
        raise ValueError
    return found


def origins(content: str) -> tuple[str, ...]:
    """Read origins of web pages between commas, or *; none where there is nothing."""
    found = _parts(content)
    if found != ("*",) and not all(map(_ORIGIN.fullmatch, found)):
        raise ValueError
    return found


def _parts(content: str) -> tuple[str, ...]:
    return tuple(part for piece in content.split(",") if (part := piece.strip()))
