"""The open loop: requests leave at their own time, whether or not the last one was answered.

That is how a crowd behaves, and what overloads a server; a closed loop slows down with it. A
small generator of our own: neither wrk nor Debian's other generators tell answers from refusals,
or keep Retry-After. Latency counts from the time when a request was due, so that a stall of
the generator shows as latency and never hides one.
"""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from benchmarks.serving.pictures import Body

MAX_OPEN = 8192


@dataclass
class Exchange:
    """One request and what came of it; times in seconds of the monotonic clock.

    Attributes:
        due: When it should have left.
        sent: When it left; 0 where it never did.
        ended: When the last byte of the answer came, or the end of waiting for it.
        status: Of the answer; 0 where there was none.
        failure: Why there was none: "timeout", "broken", "refused", "unsent" or "left".
        retry_after: The header, "" where it was not sent.
    """

    due: float
    sent: float = 0.0
    ended: float = 0.0
    status: int = 0
    failure: str = ""
    retry_after: str = ""

    @property
    def latency_ms(self) -> float:
        """From when it was due to its end."""
        return 1e3 * (self.ended - self.due)


def request_bytes(path: str, body: Body) -> bytes:
    """Return a whole request, head and body."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {body.kind}\r\n"
        f"Content-Length: {len(body.data)}\r\n\r\n"
    )
    return head.encode() + body.data


class Answer:
    """Reads one HTTP/1.1 answer as its bytes come: by its length, in chunks, or to the end."""

    def __init__(self) -> None:
        self._head = b""
        self._left: float | None = None
        self._tail = b""
        self.status = 0
        self.retry_after = ""
        self.keep = True

    def feed(self, data: bytes) -> bool:
        """Take bytes; tells whether the answer is complete."""
        if self._left is None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return False
            self._read_head(head.decode("latin-1"))
        if self._left == -1:  # in chunks: the last one is empty
            self._tail = (self._tail + data)[-7:]
            return self._tail.endswith(b"0\r\n\r\n")
        assert self._left is not None  # the head is read
        self._left -= len(data)
        return self._left <= 0

    def _read_head(self, head: str) -> None:
        first, *lines = head.split("\r\n")
        pairs = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        self.status = int(first.split(" ", 2)[1])
        self.retry_after = headers.get("retry-after", "")
        self.keep = headers.get("connection", "").lower() != "close"
        if headers.get("transfer-encoding", "").lower() == "chunked":
            self._left = -1
        else:
            self._left = float(headers.get("content-length", "inf"))


class _Connection(asyncio.Protocol):
    """One connection; at most one request under way on it."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self._exchange: Exchange | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answer = Answer()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def ask(self, exchange: Exchange, data: bytes, timeout_s: float) -> None:
        assert self.transport is not None
        self._exchange, self._answer = exchange, Answer()
        exchange.sent = time.monotonic()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(
            max(0.0, exchange.due + timeout_s - exchange.sent), self.give_up, "timeout"
        )
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self._exchange is not None and self._answer.feed(data):
            self._exchange.status = self._answer.status
            self._exchange.retry_after = self._answer.retry_after
            self._finish("")
            if self._answer.keep and self.transport is not None:
                self._crowd.idle.append(self)
            elif self.transport is not None:
                self.transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        self.transport = None
        self._finish("broken")

    def give_up(self, why: str) -> None:
        """Leave without the answer."""
        self._finish(why)
        if self.transport is not None:
            self.transport.abort()

    def _finish(self, failure: str) -> None:
        exchange, self._exchange = self._exchange, None
        if self._timer is not None:
            self._timer.cancel()
        if exchange is not None:
            exchange.ended, exchange.failure = time.monotonic(), failure
            self._crowd.under_way -= 1


class Crowd:
    """Clients that share a pool of connections; on one event loop."""

    def __init__(self, port: int, timeout_s: float) -> None:
        self._port, self._timeout_s = port, timeout_s
        self._tasks: set[asyncio.Task[None]] = set()
        self.idle: deque[_Connection] = deque()
        self.connections: list[_Connection] = []
        self.exchanges: list[Exchange] = []
        self.under_way = 0

    def ask(self, data: bytes, due: float | None = None) -> Exchange:
        """Send a request now; what comes of it shows in the exchange."""
        exchange = Exchange(time.monotonic() if due is None else due)
        self.exchanges.append(exchange)
        if self.under_way >= MAX_OPEN:
            exchange.ended, exchange.failure = exchange.due, "unsent"
            return exchange
        self.under_way += 1
        while self.idle:
            connection = self.idle.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                connection.ask(exchange, data, self._timeout_s)
                return exchange
        task = asyncio.ensure_future(self._connect(exchange, data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return exchange

    async def _connect(self, exchange: Exchange, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self), "127.0.0.1", self._port
                )
        except (OSError, TimeoutError) as error:
            exchange.ended = time.monotonic()
            exchange.failure = "timeout" if isinstance(error, TimeoutError) else "refused"
            self.under_way -= 1
            return
        self.connections.append(connection)
        connection.ask(exchange, data, self._timeout_s)

    async def settled(self) -> None:
        """Wait until nothing is under way; each request ends by its timeout."""
        while self.under_way or self._tasks:
            await asyncio.sleep(0.01)

    def leave(self) -> None:
        """Break all connections off, as clients that are gone."""
        for task in self._tasks:
            task.cancel()
        for connection in self.connections:
            connection.give_up("left")


async def arrivals(
    crowd: Crowd, data: bytes, rate: float, seconds: float, still: Callable[[], bool] | None = None
) -> None:
    """Send at random times (Poisson), `rate` a second on average.

    Args:
        crowd: Who sends.
        data: A whole request.
        rate: A second.
        seconds: For so long.
        still: Asked now and then; False ends it early.
    """
    dice = random.Random(0)
    began = due = time.monotonic()
    while due < began + seconds and (still is None or still()):
        due += -math.log(1.0 - dice.random()) / rate
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        elif dice.random() < 0.05:  # late: answers must be read all the same
            await asyncio.sleep(0)
        crowd.ask(data, due)
