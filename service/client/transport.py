"""An HTTP transport for asyncio that reads while it writes.

A server or proxy may answer before it has read the request's body (413, 401, 503), and close. What
it sent is lost where nobody reads until the body is written: asyncio closes a socket at the first
failed write. What arrives after that write is lost still: the second part of an answer that is sent
in two. httpx's own transport for threads has no such loss: there the system keeps the answer.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Iterable, Iterator
from typing import Any

import httpcore
import httpx

_READ_BYTES = 16_384  # httpcore asks for no less at a time
_KEEP_ALIVE_S = 5.0

# httpx's errors have the names of httpcore's.
_ERRORS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


class EarlyAnswerTransport(httpx.AsyncBaseTransport):
    """Sends requests over HTTP/1.1; tasks of one event loop may share it."""

    def __init__(self, proxy: httpx.Proxy | None = None) -> None:
        """Create the transport; the first request connects.

        Args:
            proxy: On the way to every address; None for none.
        """
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            proxy=_convert_proxy(proxy) if proxy else None,
            max_connections=None,  # as many as the caller's tasks
            keepalive_expiry=_KEEP_ALIVE_S,
            network_backend=_Backend(),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its answer with the whole body.

        Raises:
            httpx.TransportError: There was no answer.
        """
        with _httpx_errors():
            answer = await self._pool.handle_async_request(_convert_request(request))
            try:
                content = await answer.aread()
            finally:
                await answer.aclose()
        said = {"reason_phrase": answer.extensions["reason_phrase"]}
        return httpx.Response(
            answer.status, headers=answer.headers, content=content, extensions=said
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()


def _convert_request(request: httpx.Request) -> httpcore.Request:
    url = request.url
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        ),
        headers=request.headers.raw,
        content=request.stream,
        extensions=request.extensions,
    )


def _convert_proxy(proxy: httpx.Proxy) -> httpcore.Proxy:
    return httpcore.Proxy(
        url=str(proxy.url),
        auth=proxy.raw_auth,
        headers=proxy.headers.raw,
    )


@contextlib.contextmanager
def _httpx_errors() -> Iterator[None]:
    try:
        yield
    except _ERRORS as error:
        kind: type[httpx.TransportError]
        kind = getattr(httpx, type(error).__name__, httpx.TransportError)
        raise kind(str(error)) from error


class _Backend(httpcore.AsyncNetworkBackend):
    """Connects as httpcore does; its connections read while they write."""

    def __init__(self) -> None:
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Connection(
            await self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        )

    async def sleep(self, seconds: float) -> None:
        await self._backend.sleep(seconds)


class _Connection(httpcore.AsyncNetworkStream):
    """A connection that takes what arrives at all times, from the first write on.

    What waits is bounded by the answers: no request is sent before the one before it was answered.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._arrived: asyncio.Queue[bytes | Exception] = asyncio.Queue()
        self._receiver: asyncio.Task[None] | None = None
        self._is_refused = False
        self._is_new = True  # whether the next write begins a request
        self._head = b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        # A request's head is sent with what follows it (the last write of httpcore's is empty):
        # a server might answer the head alone and close, and the second write would fail.
        if self._is_new:
            self._head, self._is_new = buffer, False
            return
        buffer, self._head = self._head + buffer, b""
        if not buffer:
            return
        if self._receiver is None:
            self._receiver = asyncio.create_task(self._receive())
        # Starts the receiver, and later takes what has arrived before this write may fail.
        await asyncio.sleep(0)
        try:
            await self._stream.write(buffer, timeout)
        except httpcore.WriteError:  # httpcore reads the answer then, if there is one
            self._is_refused = True
            raise

    async def _receive(self) -> None:
        try:
            while data := await self._stream.read(_READ_BYTES):
                self._arrived.put_nowait(data)
            self._arrived.put_nowait(b"")
        except Exception as error:  # noqa: BLE001 - raised to whoever reads
            self._arrived.put_nowait(error)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._is_new = True
        if self._receiver is None:
            return await self._stream.read(max_bytes, timeout)
        try:
            async with asyncio.timeout(timeout):
                data = await self._arrived.get()
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from error
        if data and not isinstance(data, Exception):
            return data
        self._arrived.put_nowait(data)  # an end stays one
        if isinstance(data, Exception) and not self._is_refused:
            raise data
        return b""  # the end of an early answer that does not state its length

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        await self._stop()  # after a proxy's answer to CONNECT
        return _Connection(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    async def aclose(self) -> None:
        await self._stop()
        await self._stream.aclose()

    async def _stop(self) -> None:
        if self._receiver is not None:
            self._receiver.cancel()
            await asyncio.wait([self._receiver])
            self._receiver = None

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable" and not self._arrived.empty():
            return True  # an idle connection that was closed
        return self._stream.get_extra_info(info)
