"""The clients, synchronous and asynchronous, with retries.

A request is retried after a refused or broken connection, and after 503 when the time has passed
that the answer names. Everything else is final: a host that cannot be found, too.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import httpx

from service.client.address import (
    find_proxy,
    parse_key,
    parse_retries,
    parse_timeout,
    parse_url,
)
from service.client.answers import Explanation, Prediction
from service.client.content import Image, read_content
from service.client.exchange import (
    ApiRequest,
    Detect,
    Outcome,
    parse_explanation,
    parse_figure,
    parse_prediction,
    request_headers,
    retry_delay_s,
)
from service.client.transport import EarlyAnswerTransport

DEFAULT_URL = "http://localhost:8000"
DEFAULT_TIMEOUT_S = 30.0
DEFAULT_RETRIES = 5


class Client:
    """The synchronous client; thread-safe."""

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
        """Create the client; the first request connects.

        Args:
            url: Of the service; http without a scheme. The environment may name a proxy
                (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY), which is not asked for localhost.
            api_key: Sent with every request, if the service requires one.
            timeout_s: How long one attempt may take, in seconds.
            retries: The number of attempts after the first one.
            transport: httpx's transport, for tests.
            sleep: Waits between attempts.

        Raises:
            ValueError: One of these, or the proxy, is not valid; says which and why.
        """
        address = parse_url(url)
        proxy = find_proxy(address) if transport is None else None
        self._http = httpx.Client(
            base_url=address,
            headers=request_headers(parse_key(api_key)),
            timeout=parse_timeout(timeout_s),
            transport=transport,
            proxy=proxy,
            trust_env=False,  # the proxy was found; certificates are named below
            verify=httpx.create_ssl_context(),
            limits=httpx.Limits(max_connections=None),
        )
        self._retries, self._sleep = parse_retries(retries), sleep

    def predict(
        self,
        image: Image,
        *,
        detect: Detect | None = None,
        max_faces: int | None = None,
        min_face: float | None = None,
        prior: str | None = None,
    ) -> Prediction:
        """Classify the faces of one picture.

        Args:
            image: The picture: a path, bytes, a binary file object, a PIL image, or an array of
                pixels: uint8[h, w], uint8[h, w, 1, 3 or 4] (RGB, RGBA) or uint16[h, w].
            detect: Whether to search for faces, or take the whole picture as one; None is the
                service's default.
            max_faces: Most faces to answer, the largest first; None is the service's default.
            min_face: The smallest face to search for, as a share of the picture's long side; None
                searches for small ones only where a quick look gives a reason to.
            prior: How frequent each emotion is taken to be: "uniform", "training", "balanced" or
                "emotion:share,..."; None is the service's default.

        Returns:
            The answer.

        Raises:
            Failure: The service returned an error, or could not be reached.
            OSError: The file cannot be read.
            TypeError: The picture is none of these.
            ValueError: The array is not one of pixels.
        """
        return parse_prediction(
            self._ask(image, ApiRequest.predict(detect, max_faces, min_face, prior))
        )

    def explain(
        self,
        image: Image,
        *,
        detect: Detect | None = None,
        max_faces: int | None = None,
        min_face: float | None = None,
        prior: str | None = None,
    ) -> Explanation:
        """Classify the faces of one picture, with explanations; otherwise as `predict`."""
        return parse_explanation(
            self._ask(image, ApiRequest.explain(detect, max_faces, min_face, prior))
        )

    def figure(
        self,
        image: Image,
        *,
        detect: Detect | None = None,
        max_faces: int | None = None,
        min_face: float | None = None,
        prior: str | None = None,
    ) -> bytes:
        """Return the explanation of one picture as one figure, the bytes of a PNG."""
        return parse_figure(self._ask(image, ApiRequest.figure(detect, max_faces, min_face, prior)))

    def _ask(self, image: Image, request: ApiRequest) -> Outcome:
        content = read_content(image)
        for attempt in range(self._retries):
            outcome = self._try(content, request)
            if (seconds := retry_delay_s(outcome, attempt)) is None:
                return outcome
            self._sleep(seconds)
        return self._try(content, request)

    def _try(self, content: bytes, request: ApiRequest) -> Outcome:
        try:
            return self._http.post(
                request.path,
                params=request.params,
                headers={"accept": request.accept},
                content=content,
            )
        except httpx.RequestError as error:
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
    """The asynchronous client; tasks may share it."""

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
        """Create the client, with the arguments of `Client`; the first request connects."""
        address = parse_url(url)
        self._http = httpx.AsyncClient(
            base_url=address,
            headers=request_headers(parse_key(api_key)),
            timeout=parse_timeout(timeout_s),
            transport=transport or EarlyAnswerTransport(find_proxy(address)),
            trust_env=False,
        )
        self._retries, self._sleep = parse_retries(retries), sleep

    async def predict(
        self,
        image: Image,
        *,
        detect: Detect | None = None,
        max_faces: int | None = None,
        min_face: float | None = None,
        prior: str | None = None,
    ) -> Prediction:
        """Do as `Client.predict` does."""
        return parse_prediction(
            await self._ask(image, ApiRequest.predict(detect, max_faces, min_face, prior))
        )

    async def explain(
        self,
        image: Image,
        *,
        detect: Detect | None = None,
        max_faces: int | None = None,
        min_face: float | None = None,
        prior: str | None = None,
    ) -> Explanation:
        """Do as `Client.explain` does."""
        return parse_explanation(
            await self._ask(image, ApiRequest.explain(detect, max_faces, min_face, prior))
        )

    async def figure(
        self,
        image: Image,
        *,
        detect: Detect | None = None,
        max_faces: int | None = None,
        min_face: float | None = None,
        prior: str | None = None,
    ) -> bytes:
        """Do as `Client.figure` does."""
        return parse_figure(
            await self._ask(image, ApiRequest.figure(detect, max_faces, min_face, prior))
        )

    async def _ask(self, image: Image, request: ApiRequest) -> Outcome:
        content = await asyncio.to_thread(read_content, image)
        for attempt in range(self._retries):
            outcome = await self._try(content, request)
            if (seconds := retry_delay_s(outcome, attempt)) is None:
                return outcome
            await self._sleep(seconds)
        return await self._try(content, request)

    async def _try(self, content: bytes, request: ApiRequest) -> Outcome:
        try:
            return await self._http.post(
                request.path,
                params=request.params,
                headers={"accept": request.accept},
                content=content,
            )
        except httpx.RequestError as error:
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
