"""Parses a manifest's JSON strictly: refuses everything that parsers interpret differently."""

import json
import math
from typing import Any

from training.model.manifest import shown

_MAX_DEPTH = 16
_MAX_INTEGER = 2**53
"""Above it, JSON parsers differ in a number's value."""


def parse(text: str) -> object:
    """Parse untrusted JSON.

    Args:
        text: JSON.

    Returns:
        Dictionaries, lists, strings, finite numbers, booleans and None.

    Raises:
        ValueError: It is not JSON, is nested too deeply, repeats a key, or has a number that is
            not finite or too large.
    """
    try:
        value: object = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_real,
            parse_constant=_real,
        )
    except json.JSONDecodeError as error:
        raise ValueError("manifest is no JSON") from error
    except RecursionError as error:
        raise ValueError("manifest is nested too deeply") from error
    _check_depth(value, _MAX_DEPTH)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"manifest: {shown(key)} is there twice")
        found[key] = value
    return found


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > _MAX_INTEGER:  # of digits beyond thousands int() is slow
        raise ValueError(f"manifest: {shown(text)} is too large a number")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"manifest: {shown(text)} is no finite number")
    return value


def _check_depth(value: object, left: int) -> None:
    if left == 0:
        raise ValueError("manifest is nested too deeply")
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for each in inside:
        _check_depth(each, left - 1)
