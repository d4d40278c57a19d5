"""Tests of `training.model.manifest_json`; of whole files in `test_checkpoint`."""

import json
from typing import Any

import pytest

from training.model.manifest_json import parse


@pytest.mark.parametrize(
    "value",
    [None, True, 0, -(2**53), 2**53, 1.5, -1e-300, "", "é\x00", [], {}, {"a": [1, {"b": None}]}],
)
def test_what_json_can_say_is_read(value: Any) -> None:
    found = parse(json.dumps(value))
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("depth", [1, 16])
def test_lists_in_lists_are_read(depth: int) -> None:
    assert parse("[" * depth + "]" * depth) is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 17 + "]" * 17, "nested too deeply"),
        ('{"a":' * 16 + "1" + "}" * 16, "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a": 1, "a": 1}', "'a' is there twice"),
        ('[{"b": {"a": 1, "a": 2}}]', "'a' is there twice"),
        (str(2**53 + 1), "too large a number"),
        (str(-(2**53) - 1), "too large a number"),
        ("9" * 5000, "too large a number"),
        ("NaN", "no finite number"),
        ("[-Infinity]", "no finite number"),
        ("1e999", "no finite number"),
        ("", "no JSON"),
        ("[1,]", "no JSON"),
        ("{} {}", "no JSON"),
        ('"a\nb"', "no JSON"),
    ],
    ids=lambda text: ascii(text)[:20],
)
def test_what_readers_could_take_differently_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse(text)
    assert len(str(caught.value)) < 100
