"""Request-context and error middleware: every request has an id, is counted and timed.

Pure ASGI: middleware that wraps requests in tasks of its own would hide the client's
disconnect. Not its duty: any one route.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import InternalError, ServiceError
from service.http.disconnect import ClientGone
from service.http.problems import problem_response
from service.http.request_metrics import RequestMetrics
from service.telemetry import request_id
from service.telemetry.metrics import Metrics

CLIENT_GONE = 499
"""Nothing was sent; the number that access logs have come to use for it."""
NAME_HEADER = request_id.HEADER.encode()
# Of the body of a request that came at a bad time, this much is skipped so that the connection can
# be kept. To close it while its client still sends may reset it (of 5 MB from curl every third),
# and the client would not learn when to come back; a new one would cost more than to skip.
_MAX_SKIPPED_BYTES = 16 << 20

Headers = Iterable[tuple[bytes, bytes]]

_log = logging.getLogger(__name__)


class RequestContextMiddleware:
    """ASGI middleware, the outermost: an id for every request, and its metrics."""

    def __init__(
        self,
        app: ASGIApp,
        request_metrics: RequestMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Surround `app`.

        Args:
            app: What answers.
            request_metrics: Told of each request.
            clock: Seconds.
        """
        self._app = app
        self._request_metrics = request_metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; anything but HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = request_id.begin(offered_name(scope["headers"]))
        exchange = _Exchange(scope, receive, send, name)
        began, method = self._clock(), scope["method"]
        if method == "HEAD":  # the server leaves out the body, by its own copy of the scope
            scope = {**scope, "method": "GET"}
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            status = exchange.status or CLIENT_GONE
            self._request_metrics.record(scope["path"], method, status, self._clock() - began)


class ErrorMiddleware:
    """ASGI middleware: a problem for every exception.

    Inside of what lets other origins' pages read answers: they may read problems too.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Surround `app`.

        Args:
            app: What answers.
            metrics: Told of each failure.
        """
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and answer what it raises, unless an answer has begun."""
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
            return
        except ServiceError as found:
            error = found
        except ClientGone:
            return
        except Exception:  # noqa: BLE001 - the application's edge
            _log.exception("unexpected failure of a request")
            error = unexpected()
        if not begun:
            response = reject(error, self._metrics, path=scope["path"])
            await response(scope, receive, send)


def unexpected() -> InternalError:
    """Return the answer to a failure that nobody foresaw."""
    return InternalError("Something unexpected happened; the service's log has it.")


def reject(
    error: ServiceError,
    metrics: Metrics,
    headers: dict[str, str] | None = None,
    path: str = "",
) -> Response:
    """Count an error and return the response that says it.

    Args:
        error: What went wrong.
        metrics: Where rejections are counted.
        headers: Further headers, e.g. Allow.
        path: What was asked for.
    """
    metrics.rejections.labels(error.code).inc()
    return problem_response(error, headers, path)


class _Exchange:
    """One request's channels, watched: what status went out, and whether all has come in."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        self._name = name
        self._scope = scope
        self._receive = receive
        self._send = send
        self._body_read = False
        self.status: int | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        if not message.get("more_body", False):
            self._body_read = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (NAME_HEADER, self._name.encode())]
            if not self._body_read and not is_skipped(dict(self._scope["headers"]), self.status):
                # To keep the connection would mean to read the rest, however much it is.
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)


def offered_name(headers: Headers) -> bytes | None:
    """Return what the client wants its request to be called, if anything.

    Args:
        headers: The request's, names in lower case.
    """
    return next((value for name, value in headers if name == NAME_HEADER), None)


def is_skipped(headers: Mapping[bytes, bytes], status: int) -> bool:
    """Tell whether what is left of a body does not keep the connection from going on.

    Args:
        headers: The request's, names in lower case.
        status: Of the answer.
    """
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" in headers or not length.isdigit():
        return False
    if length == b"0":  # there is none
        return True
    # Who expects to be asked for the body may not send it.
    return status == 503 and b"expect" not in headers and int(length[:20]) <= _MAX_SKIPPED_BYTES
