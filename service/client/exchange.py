"""What both clients say and understand: questions, waits, answers. No waiting and no network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import httpx

from service.client.answers import (
    Explanation,
    Failure,
    Prediction,
    read_explanation,
    read_prediction,
)

MAX_WAIT_S = 60.0

Detect = Literal["auto", "always", "never"]
"""Whether to look for faces: where the picture seems no crop of one, always, or never."""
Image = bytes | Path
"""A picture's bytes, or the file that holds them."""
Outcome = httpx.Response | httpx.TransportError
"""How one try ended."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Question:
    """What is asked of a picture.

    Attributes:
        path: Of the service.
        accept: The kind of answer.
        params: The path's query.
    """

    path: str
    accept: str = "application/json"
    params: Mapping[str, str | int] = field(default_factory=dict)

    @classmethod
    def predict(cls, detect: Detect | None, max_faces: int | None) -> Self:
        """Ask for the emotions."""
        return cls("/predict", params=_params(detect, max_faces))

    @classmethod
    def explain(cls, detect: Detect | None, max_faces: int | None) -> Self:
        """Ask for the emotions and what they were read from."""
        return cls("/explain", params=_params(detect, max_faces))

    @classmethod
    def figure(cls, detect: Detect | None, max_faces: int | None) -> Self:
        """Ask for the same as one picture."""
        return cls("/explain", "image/png", _params(detect, max_faces))


def headers(api_key: str | None) -> dict[str, str]:
    """Return what goes with every request."""
    common = {"content-type": "application/octet-stream"}
    return common | {"x-api-key": api_key} if api_key else common


def wait_s(outcome: Outcome, attempt: int) -> float | None:
    """Return how long to wait before trying again; None where the outcome is final.

    Args:
        outcome: Of the last try.
        attempt: How many there were before it.
    """
    if isinstance(outcome, httpx.TransportError):
        return min(0.25 * 2.0**attempt, MAX_WAIT_S)
    if outcome.status_code != 503:
        return None
    named = outcome.headers.get("retry-after", "")
    return min(float(named), MAX_WAIT_S) if named.isdigit() else 1.0


def prediction_of(outcome: Outcome) -> Prediction:
    """Return the answer, or raise the Failure that came instead of one."""
    return _settle(outcome, lambda response: read_prediction(response.json()))


def explanation_of(outcome: Outcome) -> Explanation:
    """Return the answer, or raise the Failure that came instead of one."""
    return _settle(outcome, lambda response: read_explanation(response.json()))


def figure_of(outcome: Outcome) -> bytes:
    """Return the answer, or raise the Failure that came instead of one."""
    return _settle(outcome, _png)


def _png(response: httpx.Response) -> bytes:
    if response.headers.get("content-type") != "image/png":
        raise ValueError
    return response.content


def _params(detect: Detect | None, max_faces: int | None) -> dict[str, str | int]:
    asked: dict[str, str | int | None] = {"detect": detect, "max_faces": max_faces}
    return {name: value for name, value in asked.items() if value is not None}


def _settle(outcome: Outcome, read: Callable[[httpx.Response], _T]) -> _T:
    if isinstance(outcome, httpx.TransportError):
        raise Failure("unreachable", 0, f"no answer: {outcome or type(outcome).__name__}")
    try:
        if outcome.status_code == 200:
            return read(outcome)
        body: Any = outcome.json()
        raise Failure(body["code"], outcome.status_code, body["detail"])
    except (ValueError, KeyError, TypeError):
        status = outcome.status_code
        detail = f"HTTP {status} without an answer of this API; is this the right address?"
        raise Failure("not_the_service", status, detail) from None
