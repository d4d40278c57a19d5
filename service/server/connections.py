"""Uvicorn's HTTP protocol, with bounds on what one connection may cost.

    bytes ─▶ buffer ─▶ one head ─▶ uvicorn's parser ─▶ task ─▶ answer ─▶ the next head
                    └▶ its body ─▶ uvicorn's `receive`

Uvicorn does not limit the number of connections, the size of a request's head, the time that a head
takes, or the time that a client leaves its answer unread. It takes trailers for headers, starts all
pipelined requests at once, and resets a client that is still sending. Therefore uvicorn's parser
gets only heads, one at a time, each after the previous request is answered. Bodies are read here.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.errors import BadRequest, ServiceError, TooManyConnections
from service.http.disconnect import DISCONNECT_SIGNAL, DisconnectSignal
from service.http.problems import problem_bytes
from service.server.framing import (
    MAX_HEADERS,
    ChunkedBody,
    SizedBody,
    body_of,
    headers_too_large,
    take_head,
)
from service.server.transport import LingeringTransport
from service.telemetry.metrics import Metrics

LAST_REQUEST_S = 0.1
"""How long an idle connection stays open at shutdown, for a request that was already sent."""
# Most bytes of pipelined requests that are buffered; further ones stay in the socket.
_MAX_PIPELINED_BYTES = 64 << 10
# Of the connections above the limit, so many may linger until their client has read the refusal.
_MAX_REFUSED_LINGERING = 32
# Intervals of the check whether a client that has ended its sending is still connected.
_FIRST_CHECK_S, _MAX_CHECK_S = 0.01, 0.5
_TCP_CLOSE = 7  # the state of a reset socket, from Linux's include/net/tcp_states.h
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True)
class ConnectionLimits:
    """The limits of all connections.

    Attributes:
        max_connections: How many may be open at once.
        header_timeout_s: How long a request's head may take, from the opening of the connection or
            the head's first byte; also how long a client may leave its answer unread.
    """

    max_connections: int
    header_timeout_s: float


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol of one connection, within `ConnectionLimits`; on the event loop only."""

    def __init__(
        self,
        limits: ConnectionLimits,
        metrics: Metrics,
        *args: Any,
        on_connections: Callable[[int], object] | None = None,
        **kwargs: Any,
    ) -> None:
        """Create the protocol of a connection.

        Args:
            limits: The operator's.
            metrics: Counts the connections that the service ends.
            args: For uvicorn's protocol.
            on_connections: Called with the number of open connections, after one was opened or
                closed; by default it is recorded in the metrics.
            kwargs: For uvicorn's protocol.
        """
        super().__init__(*args, **kwargs)
        self._limits, self._metrics = limits, metrics
        self._on_connections = on_connections or metrics.connections.set
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._buffer = bytearray()  # received, but not parsed yet
        self._body: SizedBody | ChunkedBody | None = None  # None: a head is next
        self._shutting_down = False
        self._half_closed = False  # the client has ended its sending
        self._refused = False
        self._signal = DisconnectSignal()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or refuse it if there are too many."""
        self._lingering_transport = LingeringTransport(transport, self.loop, self._is_receiving)
        super().connection_made(self._lingering_transport)
        self._on_connections(len(self.connections))
        if len(self.connections) > self._limits.max_connections:
            self._metrics.connections_dropped.labels("limit").inc()
            self._refuse(TooManyConnections("All connections are taken; try again shortly."))
        else:
            self._set_timers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything that belongs to the connection, and signal the disconnect."""
        super().connection_lost(exc)
        self._lingering_transport.cancel_timer()
        self._signal.set()
        self._on_connections(len(self.connections))
        for timer in (self._head_timer, self._unread_timer, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Buffer received bytes, and parse as far as possible."""
        if self.transport.is_closing():
            self._lingering_transport.discard(data)
            return
        self._buffer += data
        self._proceed()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection for a client that has ended its sending, if it waits for answers."""
        self._half_closed = True
        if self._idle or self._body is not None or self.transport.is_closing():
            self._lingering_transport.flush()  # the event loop closes the connection now
            return False
        if not self._buffer:
            self.cycle.keep_alive = False
        # If the client has closed its socket, and not only its sending, this makes it reset the
        # connection.
        if self.scope["http_version"] == "1.1" and not self.cycle.response_started:
            self.transport.write(_INTERIM)
        self._check_client(_FIRST_CHECK_S)
        return True

    def pause_writing(self) -> None:
        """Stop writing, because the client does not read; end the connection if it never does."""
        super().pause_writing()
        self._start_unread_timer()

    def resume_writing(self) -> None:
        """Continue writing, because the client reads again."""
        super().resume_writing()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    # Called by the parser and by uvicorn.

    def on_headers_complete(self) -> None:
        """Start the request whose head was parsed."""
        if len(self.headers) > MAX_HEADERS:
            raise headers_too_large()
        self._body = body_of(self.parser.get_http_version(), self.headers)
        self.scope["state"][DISCONNECT_SIGNAL] = self._signal
        super().on_headers_complete()
        if self._shutting_down:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Do nothing: the parser gets heads only, so it does not know where a body ends."""

    def on_response_complete(self) -> None:
        """Continue with the next request; after the last one, wait until its answer is read."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._proceed()
        elif not self._lingering_transport.lingering and self.transport.get_write_buffer_size():
            self._start_unread_timer()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection; bytes that its client has not read are discarded."""
        self.transport.abort()

    def shutdown(self) -> None:
        """Finish the current request, or one that was already sent; then close."""
        self._shutting_down = True
        self._lingering_transport.limit_linger(LAST_REQUEST_S)
        if self._idle:
            self.loop.call_later(LAST_REQUEST_S, self._close_if_idle)
        else:
            super().shutdown()

    def _close_if_idle(self) -> None:
        # A busy loop may run this timer before it reads a request that has arrived, and closing
        # would reset the connection.
        if self._idle and self._lingering_transport.has_unread():
            self.loop.call_later(LAST_REQUEST_S, self._close_if_idle)
        else:
            super().shutdown()

    # From bytes to requests.

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _is_receiving(self) -> bool:
        """Return whether to linger: the client may be sending, and few connections linger."""
        most = self._limits.max_connections + _MAX_REFUSED_LINGERING
        if self._half_closed or len(self.connections) > most:
            return False
        begun = self._refused or self._body is not None or bool(self._buffer)
        return begun or self._lingering_transport.has_unread()

    def _proceed(self) -> None:
        """Parse the buffer, as far as possible at present."""
        try:
            while self._buffer and not self.transport.is_closing():
                if not (self._take_head() if self._body is None else self._take_body()):
                    break
        except ServiceError as error:
            self._refuse(error)
        if self.transport.is_closing():
            return
        if self._half_closed and self._idle:
            self.transport.close()
            return
        paused = self._body is not None and self._body.paused
        if paused:
            self.loop.call_soon(self._proceed)
        self._lingering_transport.hold(paused or len(self._buffer) > _MAX_PIPELINED_BYTES)
        self._set_timers()

    def _take_head(self) -> bool:
        """Begin the next request; returns whether the buffer held it completely.

        It begins when its head is complete and the previous request is answered.
        """
        head = take_head(self._buffer) if self._idle else None
        if head is None:
            return False
        self.parser = httptools.HttpRequestParser(self)
        try:
            self.parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # no other protocol is supported: the request is served without the upgrade
        except httptools.HttpParserError as error:
            cause = error.__context__  # the error that a callback raised
            if isinstance(cause, ServiceError):
                raise cause from None
            raise BadRequest("The request is not valid HTTP/1.1.") from None
        return self._take_body()

    def _take_body(self) -> bool:
        """Pass on the received part of the body; returns whether the body is complete."""
        body = self._body
        if body is None:  # the parser did not accept the head as a request
            raise BadRequest("The request is not valid HTTP/1.1.")
        if not body.complete and (content := body.take(self._buffer)):
            self.on_body(content)
        if body.complete:
            self._body = None
            super().on_message_complete()
        return body.complete

    # Timers, and the end of a connection.

    def _set_timers(self) -> None:
        """Start the timer for what is expected next, and cancel the other one.

        The rest of a request's head must arrive within the short `header_timeout_s`, a new request
        within the longer keep-alive time.
        """
        begun = self._body is not None or bool(self._buffer) or self.cycle is None
        if self._head_timer is not None and not (self._idle and begun):
            self._head_timer.cancel()
            self._head_timer = None
        if self.timeout_keep_alive_task is not None and (begun or not self._idle):
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        if self._idle and begun and self._head_timer is None:
            self._head_timer = self.loop.call_later(
                self._limits.header_timeout_s, self._abort, "header_timeout"
            )
        if self._idle and not begun and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _start_unread_timer(self) -> None:
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(
                self._limits.header_timeout_s, self._abort, "unread"
            )

    def _abort(self, reason: str) -> None:
        self._metrics.connections_dropped.labels(reason).inc()
        self.transport.abort()

    def _check_client(self, seconds: float) -> None:
        """Detect the disconnect of a client that has ended its sending.

        The event loop does not report it, since it has stopped reading.
        """
        if self._idle or self.transport.is_closing():
            return
        connection: socket.socket = self.transport.get_extra_info("socket")
        if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE:
            self.transport.abort()
        else:
            self.loop.call_later(seconds, self._check_client, min(2 * seconds, _MAX_CHECK_S))

    def _refuse(self, error: ServiceError) -> None:
        """Answer without the application, and close.

        A request that is still at work, because its body turned out to be malformed, is cancelled.
        """
        self._metrics.rejections.labels(error.code).inc()
        self._refused = True
        if not self._idle:
            if self.cycle.response_started:  # a second answer would corrupt the first one
                self.transport.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._signal.set()
        self.transport.write(problem_bytes(error, {"connection": "close"}))
        self.transport.close()
