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

from service.client.answers import Explanation, Prediction
from service.client.exchange import (
    Detect,
    Image,
    Outcome,
    Question,
    explanation_of,
    figure_of,
    headers,
    prediction_of,
    wait_s,
)

DEFAULT_URL = "http://localhost:8000"
DEFAULT_TIMEOUT_S = 30.0
DEFAULT_RETRIES = 5


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
            base_url=url, headers=headers(api_key), timeout=timeout_s, transport=transport
        )
        self._retries, self._sleep = retries, sleep

    def predict(
        self, image: Image, *, detect: Detect | None = None, max_faces: int | None = None
    ) -> Prediction:
        """Have the faces of one picture named.

        Args:
            image: The picture.
            detect: Whether to look for faces or to take the whole picture for one; None leaves it
                to the service.
            max_faces: The most to answer, the largest first; None leaves it to the service.

        Returns:
            The answer.

        Raises:
            Failure: The service refused it, or could not be reached.
            OSError: The file cannot be read.
        """
        return prediction_of(self._ask(image, Question.predict(detect, max_faces)))

    def explain(
        self, image: Image, *, detect: Detect | None = None, max_faces: int | None = None
    ) -> Explanation:
        """Have the faces of one picture named, and shown why; otherwise as `predict`."""
        return explanation_of(self._ask(image, Question.explain(detect, max_faces)))

    def figure(
        self, image: Image, *, detect: Detect | None = None, max_faces: int | None = None
    ) -> bytes:
        """Have all that `explain` shows composed to one picture; returns a PNG's bytes."""
        return figure_of(self._ask(image, Question.figure(detect, max_faces)))

    def _ask(self, image: Image, question: Question) -> Outcome:
        content = image.read_bytes() if isinstance(image, Path) else image
        for attempt in range(self._retries):
            outcome = self._try(content, question)
            if (seconds := wait_s(outcome, attempt)) is None:
                return outcome
            self._sleep(seconds)
        return self._try(content, question)

    def _try(self, content: bytes, question: Question) -> Outcome:
        try:
            return self._http.post(
                question.path,
                params=question.params,
                headers={"accept": question.accept},
                content=content,
            )
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
            base_url=url, headers=headers(api_key), timeout=timeout_s, transport=transport
        )
        self._retries, self._sleep = retries, sleep

    async def predict(
        self, image: Image, *, detect: Detect | None = None, max_faces: int | None = None
    ) -> Prediction:
        """Do as `Client.predict` does."""
        return prediction_of(await self._ask(image, Question.predict(detect, max_faces)))

    async def explain(
        self, image: Image, *, detect: Detect | None = None, max_faces: int | None = None
    ) -> Explanation:
        """Do as `Client.explain` does."""
        return explanation_of(await self._ask(image, Question.explain(detect, max_faces)))

    async def figure(
        self, image: Image, *, detect: Detect | None = None, max_faces: int | None = None
    ) -> bytes:
        """Do as `Client.figure` does."""
        return figure_of(await self._ask(image, Question.figure(detect, max_faces)))

    async def _ask(self, image: Image, question: Question) -> Outcome:
        content = await asyncio.to_thread(image.read_bytes) if isinstance(image, Path) else image
        for attempt in range(self._retries):
            outcome = await self._try(content, question)
            if (seconds := wait_s(outcome, attempt)) is None:
                return outcome
            await self._sleep(seconds)
        return await self._try(content, question)

    async def _try(self, content: bytes, question: Question) -> Outcome:
        try:
            return await self._http.post(
                question.path,
                params=question.params,
                headers={"accept": question.accept},
                content=content,
            )
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
