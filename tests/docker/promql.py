"""As much of PromQL as finding every metric and label in an expression takes."""

import re
from dataclasses import dataclass

_STRINGLESS = r'(?:[^{}"]|"(?:[^"\\]|\\.)*")*'
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_WINDOW = re.compile(r"\[[^\]]*\]|\boffset\s+\w+")
_SELECTOR = re.compile(rf"(?<![\w.:\"])([a-zA-Z_:][\w:]*)\s*(?:\{{({_STRINGLESS})\}})?(\s*\()?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_WORDS = {"and", "or", "unless", "bool", "inf", "nan"}
# Aggregations may have their grouping, which is cut out, between the name and the bracket.
_AGGREGATIONS = {"sum", "min", "max", "avg", "count", "topk", "quantile"}


@dataclass(frozen=True)
class Selector:
    metric: str
    matchers: tuple[tuple[str, str, str], ...]  # label, operator, value


def selectors(expression: str) -> list[Selector]:
    """Every metric that an expression reads, with its matchers."""
    text = _WINDOW.sub(" ", _GROUPING.sub(" ", expression))
    found = []
    for name, matchers, call in _SELECTOR.findall(text):
        if call or name in _WORDS | _AGGREGATIONS:
            continue
        found.append(Selector(name, tuple(_MATCHER.findall(matchers))))
    return found


def grouped_labels(expression: str) -> set[str]:
    """Every label that an expression groups or joins by."""
    names = (name.strip() for part in _GROUPING.findall(expression) for name in part.split(","))
    return {name for name in names if name}
