"""Requests, retry delays and answers, shared by both clients; does no I/O."""

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
"""Whether to search for faces: auto searches unless the picture seems to be a crop of one face."""
Image = bytes | Path
"""A picture's bytes, or its file."""
Outcome = httpx.Response | httpx.TransportError
"""The result of one attempt."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class ApiRequest:
    """A request about a picture.

    Attributes:
        path: Of the endpoint.
        accept: Media type of the answer.
        params: Query parameters.
    """

    path: str
    accept: str = "application/json"
    params: Mapping[str, str | int | float] = field(default_factory=dict)

    @classmethod
    def predict(
        cls,
        detect: Detect | None,
        max_faces: int | None,
        min_face: float | None,
        prior: str | None,
    ) -> Self:
        """Request the emotions."""
        return cls("/predict", params=_params(detect, max_faces, min_face, prior))

    @classmethod
    def explain(
        cls,
        detect: Detect | None,
        max_faces: int | None,
        min_face: float | None,
        prior: str | None,
    ) -> Self:
        """Request the emotions with explanations."""
        return cls("/explain", params=_params(detect, max_faces, min_face, prior))

    @classmethod
    def figure(
        cls,
        detect: Detect | None,
        max_faces: int | None,
        min_face: float | None,
        prior: str | None,
    ) -> Self:
        """Request the explanations as one figure."""
        return cls("/explain", "image/png", _params(detect, max_faces, min_face, prior))


def request_headers(api_key: str | None) -> dict[str, str]:
    """Return the headers of every request."""
    common = {"content-type": "application/octet-stream"}
    return common | {"x-api-key": api_key} if api_key else common


def retry_delay_s(outcome: Outcome, attempt: int) -> float | None:
    """Return how long to wait before the next attempt; None if the outcome is final.

    Args:
        outcome: Of the last attempt.
        attempt: How many attempts there were before it.
    """
    if isinstance(outcome, httpx.TransportError):
        return min(0.25 * 2.0**attempt, MAX_WAIT_S)
    if outcome.status_code != 503:
        return None
    named = outcome.headers.get("retry-after", "")
    return min(float(named), MAX_WAIT_S) if named.isdigit() else 1.0


def parse_prediction(outcome: Outcome) -> Prediction:
    """Parse the answer; raises `Failure` if there is none."""
    return _parse(outcome, lambda response: read_prediction(response.json()))


def parse_explanation(outcome: Outcome) -> Explanation:
    """Parse the answer; raises `Failure` if there is none."""
    return _parse(outcome, lambda response: read_explanation(response.json()))


def parse_figure(outcome: Outcome) -> bytes:
    """Parse the answer; raises `Failure` if there is none."""
    return _parse(outcome, _png)


def _png(response: httpx.Response) -> bytes:
    if response.headers.get("content-type") != "image/png":
        raise ValueError
    return response.content


def _params(
    detect: Detect | None, max_faces: int | None, min_face: float | None, prior: str | None
) -> dict[str, str | int | float]:
    asked: dict[str, str | int | float | None]
    asked = {"detect": detect, "max_faces": max_faces, "min_face": min_face, "prior": prior}
    return {name: value for name, value in asked.items() if value is not None}


def _parse(outcome: Outcome, read: Callable[[httpx.Response], _T]) -> _T:
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
