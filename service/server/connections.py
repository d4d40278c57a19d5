"""Connections that cost little until they bring a request, and end when they do not.

Uvicorn bounds neither how many there are, nor how long a request's head may take, nor how large it
may be, nor how long a client may leave its answer unread. Not its duty: bodies and what is done
with them (`service.http.uploads`, `service.http.routes`).
"""

import asyncio
import fcntl
import termios
from array import array
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import BadRequest, HeadersTooLarge, ServiceError, TooManyConnections
from service.http.disconnect import DEPARTURE, DisconnectSignal
from service.http.problems import problem_bytes
from service.server.limits import ConnectionLimits
from service.telemetry.metrics import Metrics

MAX_HEAD_BYTES = 64 << 10
MAX_HEADERS = 100
# How long a connection without a request stays open at shutdown, for one already on its way.
LAST_CALL_S = 0.1


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol within `ConnectionLimits`; on the event loop, one a connection."""

    def __init__(
        self,
        limits: ConnectionLimits,
        metrics: Metrics,
        *args: Any,
        tell: Callable[[int], object] | None = None,
        **kwargs: Any,
    ) -> None:
        """Bound what uvicorn makes of `args` and `kwargs`.

        Args:
            limits: The operator's.
            metrics: Told of each connection that was dropped.
            args: Uvicorn's.
            tell: Told how many connections there are; by default the metrics are.
            kwargs: Uvicorn's.
        """
        super().__init__(*args, **kwargs)
        self._limits, self._metrics = limits, metrics
        self._tell = tell or metrics.connections.set
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._in_head = self._leaving = False
        self._departure = DisconnectSignal()
        self._head_bytes = 0
        self._refusal: ServiceError = BadRequest("The request is not valid HTTP/1.1.")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it at once."""
        super().connection_made(transport)
        self._tell(len(self.connections))
        if len(self.connections) > self._limits.max_connections:
            self._metrics.connections_dropped.labels("limit").inc()
            self._refuse(TooManyConnections("All connections are taken; try again shortly."))
        else:
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        super().connection_lost(exc)
        self._departure.happen()
        self._tell(len(self.connections))
        for timer in (self._head_timer, self._unread_timer, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take the next bytes, and see to it that a head ends sometime."""
        # Those that began it are not counted: most of them may belong to the body before.
        self._head_bytes += len(data) if self._in_head else 0
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(_headers_too_large())
            return
        super().data_received(data)
        waits = self._head_timer is not None or self.timeout_keep_alive_task is not None
        if self._idle and not waits and not self.transport.is_closing():
            self._expect_head()

    def on_message_begin(self) -> None:
        """Note the first byte of a head."""
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Start the request, or turn it away."""
        self._in_head = False
        self._have_head()
        if len(self.headers) > MAX_HEADERS:
            self._refusal = _headers_too_large()
            raise ValueError("too many headers")  # ends the parsing, and in `send_400_response`
        self.scope["state"][DEPARTURE] = self._departure
        super().on_headers_complete()
        if self._leaving:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Note the end of the body; where it was answered before, the next request is awaited."""
        super().on_message_complete()
        if self._idle and self.timeout_keep_alive_task is None:
            self._have_head()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn calls it with one
        """Answer what cannot be parsed, as a problem like every other."""
        self._refuse(self._refusal)

    def on_response_complete(self) -> None:
        """Go on to the next request, or see the last answer read."""
        super().on_response_complete()
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._expect_reading()

    def pause_writing(self) -> None:
        """Hold answers back from a client that does not read them, and not for long."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """Go on: it reads."""
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that brings nothing more; what it left unread is dropped."""
        self.transport.abort()

    def shutdown(self) -> None:
        """Finish the present request, or one that is on its way already; then close."""
        self._leaving = True
        if self._idle:
            self.loop.call_later(LAST_CALL_S, self._leave)
        else:
            super().shutdown()

    def _leave(self) -> None:
        # A busy loop may come here before it reads what has arrived. Closing would reset that.
        if self._idle and _has_unread(self.transport):
            self.loop.call_later(LAST_CALL_S, self._leave)
        else:
            super().shutdown()

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _have_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(
            self._limits.header_timeout_s, self._drop, "header_timeout"
        )

    def _expect_reading(self) -> None:
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(
                self._limits.header_timeout_s, self._drop, "unread"
            )

    def _drop(self, reason: str) -> None:
        self._metrics.connections_dropped.labels(reason).inc()
        self.transport.abort()

    def _refuse(self, error: ServiceError) -> None:
        """Answer without the application, and close."""
        self._metrics.rejections.labels(error.code).inc()
        self.transport.write(problem_bytes(error, {"connection": "close"}))
        self.transport.close()
        self._expect_reading()


def _has_unread(transport: asyncio.BaseTransport) -> bool:
    """Tell whether bytes have arrived that nobody has read."""
    if transport.is_closing():
        return False
    unread = array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, unread)
    return unread[0] > 0


def _headers_too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"At most {MAX_HEADERS} headers of {MAX_HEAD_BYTES} bytes are read.")
