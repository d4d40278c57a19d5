"""Request-context and error middleware: every request has an id, is counted and timed.

Pure ASGI: middleware that runs requests in separate tasks would hide the client's disconnect.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import InternalError, ServiceError
from service.http.disconnect import ClientDisconnected
from service.http.problems import problem_response
from service.http.request_metrics import RequestMetrics
from service.telemetry import request_id
from service.telemetry.metrics import Metrics

CLIENT_CLOSED = 499
"""The status in metrics for a client that disconnected before an answer, as in access logs."""
NAME_HEADER = request_id.HEADER.encode()
# The body of a refused request (503) is skipped up to this size, to keep the connection. Closing it
# while the client sends may reset it (every third upload of 5 MB from curl), so that the client
# misses the answer and its Retry-After; a new connection would cost more than skipping.
_MAX_SKIPPED_BYTES = 16 << 20

Headers = Iterable[tuple[bytes, bytes]]

_log = logging.getLogger(__name__)


class RequestContextMiddleware:
    """ASGI middleware, the outermost: an id for every request, and its metrics."""

    def __init__(
        self,
        app: ASGIApp,
        request_metrics: RequestMetrics,
        paths: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wrap `app`.

        Args:
            app: The inner application.
            request_metrics: Records each request.
            paths: The application's; each is also served with a slash at its end.
            clock: Seconds.
        """
        self._app = app
        self._paths = frozenset(paths)
        self._request_metrics = request_metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; passes other scopes than HTTP through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        name = request_id.begin(find_request_id(scope["headers"]))
        exchange = _Exchange(scope, receive, send, name)
        began, method = self._clock(), scope["method"]
        if (path := scope["path"]).endswith("/") and path[:-1] in self._paths:
            scope = {**scope, "path": path[:-1]}
        if method == "HEAD":  # the server omits the body, by its own copy of the scope
            scope = {**scope, "method": "GET"}
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            status = exchange.status or CLIENT_CLOSED
            self._request_metrics.record(scope["path"], method, status, self._clock() - began)


class ErrorMiddleware:
    """ASGI middleware: answers every exception with a problem.

    It is inside the CORS middleware, so that pages of other origins can read problems too.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap `app`.

        Args:
            app: The inner application.
            metrics: Counts the errors.
        """
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and answer its exception, unless an answer has begun."""
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
        except ClientDisconnected:
            return
        except Exception:  # noqa: BLE001 - the application's boundary
            _log.exception("unexpected failure of a request")
            error = unexpected()
        if not begun:
            response = reject(error, self._metrics, path=scope["path"])
            await response(scope, receive, send)


def unexpected() -> InternalError:
    """Return the error for an unexpected exception."""
    return InternalError("Something unexpected happened; the service's log has it.")


def reject(
    error: ServiceError,
    metrics: Metrics,
    headers: dict[str, str] | None = None,
    path: str = "",
) -> Response:
    """Count an error and return its response.

    Args:
        error: The error.
        metrics: Counts the rejection.
        headers: Further headers, e.g. Allow.
        path: The requested path.
    """
    metrics.rejections.labels(error.code).inc()
    return problem_response(error, headers, path)


class _Exchange:
    """Wraps a request's ASGI channels: records the status, and whether the body was read."""

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
            if not self._body_read and not can_skip_body(dict(self._scope["headers"]), self.status):
                # Keeping the connection would require reading the rest of the body.
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        await self._send(message)


def find_request_id(headers: Headers) -> bytes | None:
    """Return the request id that the client sent, if any.

    Args:
        headers: The request's, names in lower case.
    """
    return next((value for name, value in headers if name == NAME_HEADER), None)


def can_skip_body(headers: Mapping[bytes, bytes], status: int) -> bool:
    """Return whether the connection can be kept although the body was not read.

    Args:
        headers: The request's, names in lower case.
        status: Of the answer.
    """
    length = headers.get(b"content-length", b"0")
    if b"transfer-encoding" in headers or not length.isdigit():
        return False
    if length == b"0":  # there is none
        return True
    # A client that sent "Expect: 100-continue" may not send the body.
    return status == 503 and b"expect" not in headers and int(length[:20]) <= _MAX_SKIPPED_BYTES
