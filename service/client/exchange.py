"""Requests, retry delays and answers, shared by both clients; does no I/O."""

import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
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
Outcome = httpx.Response | httpx.RequestError
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
    if isinstance(outcome, httpx.RequestError):
        if _is_final(outcome):
            return None
        return min(0.25 * 2.0**attempt, MAX_WAIT_S)
    if outcome.status_code != 503:
        return None
    named = outcome.headers.get("retry-after", "")
    return min(float(named), MAX_WAIT_S) if re.fullmatch("[0-9]+", named) else 1.0


def _is_final(error: httpx.RequestError) -> bool:
    """Return whether a request fails in the same way however often it is sent."""
    kinds = httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.DecodingError
    causes = socket.gaierror, ssl.SSLCertVerificationError, UnicodeError
    return isinstance(error, kinds) or any(isinstance(one, causes) for one in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


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
    if isinstance(outcome, httpx.RequestError):
        raise Failure("unreachable", 0, f"no answer: {_reason(outcome)}")
    try:
        if outcome.status_code == 200:
            return read(outcome)
        body: Any = outcome.json()
        raise Failure(body["code"], outcome.status_code, body["detail"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        status = f"{outcome.status_code} {outcome.reason_phrase}".strip()
        detail = (
            f"HTTP {status} without an answer of this API; "
            "is this the right address, or did a proxy answer?"
        )
        raise Failure("not_the_service", outcome.status_code, detail) from None


def _reason(error: httpx.RequestError) -> str:
    if any(isinstance(cause, socket.gaierror | UnicodeError) for cause in _causes(error)):
        return f"the host {error.request.url.host} cannot be found; is this the right address?"
    return str(error) or type(error).__name__
