"""Asking the service: one exchange, tried again as the service says.

What is tried again: no connection, a connection that broke, and 503, after the time that the
answer names. Everything else is final.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from service.client.answers import Failure, Prediction, read_prediction

DEFAULT_URL = "http://localhost:8000"
DEFAULT_TIMEOUT_S = 30.0
DEFAULT_RETRIES = 5
MAX_WAIT_S = 60.0

Image = bytes | Path
"""A picture's bytes, or the file that holds them."""

_Outcome = httpx.Response | httpx.TransportError


class Client:
    """Asks the service, one picture at a time; threads may share it."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = DEFAULT_RETRIES,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Prepare; the first request connects.

        Args:
            url: Where the service is.
            api_key: Sent with every request, if the service wants one.
            timeout_s: How long one try may take, in seconds.
            retries: How often to try again what may be tried again.
            transport: httpx's transport, for tests.
            sleep: How to wait between tries.
        """
        self._http = httpx.Client(
            base_url=url, headers=_headers(api_key), timeout=timeout_s, transport=transport
        )
        self._retries, self._sleep = retries, sleep

    def predict(self, image: Image) -> Prediction:
        """Have the faces of one picture named.

        Args:
            image: The picture.

        Returns:
            The answer.

        Raises:
            Failure: The service refused it, or could not be reached.
            OSError: The file cannot be read.
        """
        content = _bytes(image)
        for attempt in range(self._retries):
            outcome = self._try(content)
            if (wait_s := _wait_s(outcome, attempt)) is None:
                return _settle(outcome)
            self._sleep(wait_s)
        return _settle(self._try(content))

    def _try(self, content: bytes) -> _Outcome:
        try:
            return self._http.post("/predict", content=content)
        except httpx.TransportError as error:
            return error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()


class AsyncClient:
    """Asks the service, as many pictures at a time as there are tasks that ask."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retries: int = DEFAULT_RETRIES,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Prepare, with the arguments of `Client`; the first request connects."""
        self._http = httpx.AsyncClient(
            base_url=url, headers=_headers(api_key), timeout=timeout_s, transport=transport
        )
        self._retries, self._sleep = retries, sleep

    async def predict(self, image: Image) -> Prediction:
        """Do as `Client.predict` does."""
        content = await asyncio.to_thread(_bytes, image)
        for attempt in range(self._retries):
            outcome = await self._try(content)
            if (wait_s := _wait_s(outcome, attempt)) is None:
                return _settle(outcome)
            await self._sleep(wait_s)
        return _settle(await self._try(content))

    async def _try(self, content: bytes) -> _Outcome:
        try:
            return await self._http.post("/predict", content=content)
        except httpx.TransportError as error:
            return error

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"content-type": "application/octet-stream"}
    return headers | {"x-api-key": api_key} if api_key else headers


def _bytes(image: Image) -> bytes:
    return image.read_bytes() if isinstance(image, Path) else image


def _wait_s(outcome: _Outcome, attempt: int) -> float | None:
    """Return how long to wait before trying again; None where the outcome is final."""
    if isinstance(outcome, httpx.TransportError):
        return min(0.25 * 2.0**attempt, MAX_WAIT_S)
    if outcome.status_code != 503:
        return None
    named = outcome.headers.get("retry-after", "")
    return min(float(named), MAX_WAIT_S) if named.isdigit() else 1.0


def _settle(outcome: _Outcome) -> Prediction:
    """Return the answer, or raise what came instead of one."""
    if isinstance(outcome, httpx.TransportError):
        raise Failure("unreachable", 0, f"no answer: {outcome or type(outcome).__name__}")
    try:
        body = outcome.json()
        if outcome.status_code == 200:
            return read_prediction(body)
        raise Failure(body["code"], outcome.status_code, body["detail"])
    except (ValueError, KeyError, TypeError):
        status = outcome.status_code
        detail = f"HTTP {status} without an answer of this API; is this the right address?"
        raise Failure("not_the_service", status, detail) from None
