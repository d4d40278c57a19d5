"""Connections that cost little until they bring a request, and end when they do not.

    bytes ─▶ buffer ─▶ one head ─▶ uvicorn's parser ─▶ task ─▶ answer ─▶ the next head
                    └▶ its body ─▶ uvicorn's `receive`

Uvicorn bounds neither how many connections there are, nor how long a request's head may take, nor
how large it may be, nor how long a client may leave its answer unread; it obeys trailers, starts
all requests of a pipeline at once, and resets a client that still sends. So its parser is given
heads alone, each once the request before it is answered, and bodies are read here.
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

# How long a connection without a request stays open at shutdown, for one already on its way.
LAST_CALL_S = 0.1
# Requests that wait for the one before them; what is beyond is not read before.
_MAX_WAITING_BYTES = 64 << 10
# Of connections above the limit so many are told why, and not reset.
_MAX_TURNED_AWAY = 32
# Between looks whether a client that sends no more still reads.
_FIRST_LOOK_S, _MAX_LOOK_S = 0.01, 0.5
_TCP_CLOSE = 7  # Linux, include/net/tcp_states.h
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True)
class ConnectionLimits:
    """What connections may do.

    Attributes:
        max_connections: How many at once.
        header_timeout_s: From a connection's or a head's first byte to the head's last one; also
            how long a client may stop reading its answer.
    """

    max_connections: int
    header_timeout_s: float


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
        self._buffer = bytearray()  # what arrived and was not read yet
        self._body: SizedBody | ChunkedBody | None = None  # None: a head is next
        self._leaving = self._half_closed = self._broken = False
        self._signal = DisconnectSignal()

    # Called by the event loop.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it at once."""
        self._wire = LingeringTransport(transport, self.loop, self._is_receiving)
        super().connection_made(self._wire)
        self._tell(len(self.connections))
        if len(self.connections) > self._limits.max_connections:
            self._metrics.connections_dropped.labels("limit").inc()
            self._refuse(TooManyConnections("All connections are taken; try again shortly."))
        else:
            self._set_timers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        super().connection_lost(exc)
        self._wire.lost()
        self._signal.set()
        self._tell(len(self.connections))
        for timer in (self._head_timer, self._unread_timer, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Take the next bytes, and see to it that a head ends sometime."""
        if self.transport.is_closing():
            self._wire.drop(data)
            return
        self._buffer += data
        self._proceed()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Stay open for a client that sends no more, and waits for answers."""
        self._half_closed = True
        if self._idle or self._body is not None or self.transport.is_closing():
            return False
        if not self._buffer:
            self.cycle.keep_alive = False
        # A client that has left altogether, and not its sending alone, resets the connection now.
        if self.scope["http_version"] == "1.1" and not self.cycle.response_started:
            self.transport.write(_INTERIM)
        self._look_for_client(_FIRST_LOOK_S)
        return True

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

    # Called by the parser and by uvicorn.

    def on_headers_complete(self) -> None:
        """Start the request whose head this was."""
        if len(self.headers) > MAX_HEADERS:
            raise headers_too_large()
        self._body = body_of(self.parser.get_http_version(), self.headers)
        self.scope["state"][DISCONNECT_SIGNAL] = self._signal
        super().on_headers_complete()
        if self._leaving:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """Do nothing: the parser, which sees heads alone, does not know when a body ends."""

    def on_response_complete(self) -> None:
        """Go on to the next request, or see the last answer read."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._proceed()
        elif not self._wire.lingering and self.transport.get_write_buffer_size():
            self._expect_reading()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that brings nothing more; what it left unread is dropped."""
        self.transport.abort()

    def shutdown(self) -> None:
        """Finish the present request, or one that is on its way already; then close."""
        self._leaving = True
        self._wire.hurry(LAST_CALL_S)
        if self._idle:
            self.loop.call_later(LAST_CALL_S, self._leave)
        else:
            super().shutdown()

    def _leave(self) -> None:
        # A busy loop may come here before it reads what has arrived. Closing would reset that.
        if self._idle and self._wire.has_unread():
            self.loop.call_later(LAST_CALL_S, self._leave)
        else:
            super().shutdown()

    # From bytes to requests.

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _is_receiving(self) -> bool:
        """Whether the client may still be sending, and there is room to wait for its end."""
        most = self._limits.max_connections + _MAX_TURNED_AWAY
        if self._half_closed or len(self.connections) > most:
            return False
        begun = self._broken or self._body is not None or bool(self._buffer)
        return begun or self._wire.has_unread()

    def _proceed(self) -> None:
        """Go on with what has arrived, as far as it can be read at present."""
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
        self._wire.hold(paused or len(self._buffer) > _MAX_WAITING_BYTES)
        self._set_timers()

    def _take_head(self) -> bool:
        """Begin the next request, if its head is here whole and the one before is answered."""
        head = take_head(self._buffer) if self._idle else None
        if head is None:
            return False
        self.parser = httptools.HttpRequestParser(self)
        try:
            self.parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass  # to what is not spoken here: the request is served as if nobody had asked
        except httptools.HttpParserError as error:
            cause = error.__context__  # what a callback raised
            if isinstance(cause, ServiceError):
                raise cause from None
            raise BadRequest("The request is not valid HTTP/1.1.") from None
        return self._take_body()

    def _take_body(self) -> bool:
        """Take what is here of the body; tell whether that was the end of it."""
        body = self._body
        if body is None:  # the parser took the head for no request
            raise BadRequest("The request is not valid HTTP/1.1.")
        if not body.complete and (content := body.take(self._buffer)):
            self.on_body(content)
        if body.complete:
            self._body = None
            super().on_message_complete()
        return body.complete

    # What a connection may cost.

    def _set_timers(self) -> None:
        """Expect what is next: the rest of a request in a short time, a new one in a long one."""
        begun = self._body is not None or bool(self._buffer) or self.cycle is None
        if self._head_timer is not None and not (self._idle and begun):
            self._head_timer.cancel()
            self._head_timer = None
        if self.timeout_keep_alive_task is not None and (begun or not self._idle):
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        if self._idle and begun and self._head_timer is None:
            self._head_timer = self.loop.call_later(
                self._limits.header_timeout_s, self._drop, "header_timeout"
            )
        if self._idle and not begun and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _expect_reading(self) -> None:
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(
                self._limits.header_timeout_s, self._drop, "unread"
            )

    def _drop(self, reason: str) -> None:
        self._metrics.connections_dropped.labels(reason).inc()
        self.transport.abort()

    def _look_for_client(self, seconds: float) -> None:
        """Notice that a client which sends no more has left; the event loop does not."""
        if self._idle or self.transport.is_closing():
            return
        connection: socket.socket = self.transport.get_extra_info("socket")
        if connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE:
            self.transport.abort()
        else:
            self.loop.call_later(seconds, self._look_for_client, min(2 * seconds, _MAX_LOOK_S))

    def _refuse(self, error: ServiceError) -> None:
        """Answer without the application, and close; a request whose body broke is given up."""
        self._metrics.rejections.labels(error.code).inc()
        self._broken = True
        if not self._idle:
            if self.cycle.response_started:  # two answers in one would be worse than none
                self.transport.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._signal.set()
        self.transport.write(problem_bytes(error, {"connection": "close"}))
        self.transport.close()
