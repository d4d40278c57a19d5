"""Tests of `service.server.connections`: what a connection may cost, over real sockets."""

import asyncio
import contextlib
import json
import os
import resource
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from service.errors import Overloaded
from service.server.connections import LAST_REQUEST_S, BoundedProtocol, ConnectionLimits
from service.server.framing import MAX_HEAD_BYTES
from service.server.sockets import allow_descriptors
from tests.service.made_pictures import flat
from tests.service.serving import FakeEngine, GatedEngine, serving
from tests.waiting import until

pytestmark = pytest.mark.anyio

GET = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
PATIENT = ConnectionLimits(max_connections=100, header_timeout_s=30.0)


@dataclass
class Listening:
    app: FastAPI
    state: ServerState
    port: int

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    def sample(self, metric: str, **labels: str) -> float:
        value = self.app.state.metrics.registry.get_sample_value(metric, labels)
        assert value is not None
        return float(value)

    async def requests(self, count: int, status: str) -> None:
        """Wait until so many requests to /predict have ended with this status."""
        labels = {"route": "/predict", "kind": "prediction", "method": "POST", "status": status}
        value = self.app.state.metrics.registry.get_sample_value
        await until(lambda: value("fer_requests_total", labels) == count)

    async def pass_time(self, seconds: float) -> None:
        """Let the event loop read what was sent, then let its clock jump."""
        for _ in range(5):
            await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        time_before = loop.time
        loop.time = lambda: time_before() + seconds  # type: ignore[method-assign]
        await asyncio.sleep(0)


@asynccontextmanager
async def listening(
    limits: ConnectionLimits, engine: FakeEngine | None = None, idle_s: Any = 30, **settings: Any
) -> AsyncIterator[Listening]:
    async with serving(engine, **settings) as (_, app):
        config = uvicorn.Config(
            app, log_config=None, timeout_keep_alive=idle_s, access_log=False, ws="none"
        )
        config.load()
        state = ServerState()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: BoundedProtocol(
                limits,
                app.state.metrics,
                config=config,
                server_state=state,
                app_state={},
            ),
            "127.0.0.1",
            0,
        )
        try:
            yield Listening(app, state, server.sockets[0].getsockname()[1])
        finally:
            server.close()
            for connection in list(state.connections):
                connection.transport.abort()
            await until(lambda: not state.connections)


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    if head[0].startswith("HTTP/1.1 100 "):
        return await answer(reader)
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, body


async def send_until_refused(server: Listening, writer: Any, head: bytes) -> int:
    """Send piece by piece, and nothing after a refusal, which would reset the connection."""
    await until(lambda: server.state.connections)
    (connection,) = server.state.connections
    assert isinstance(connection, BoundedProtocol)
    taken = 0

    def count(data: bytes) -> None:
        nonlocal taken
        taken += len(data)
        BoundedProtocol.data_received(connection, data)

    def has_taken(size: int) -> bool:
        return taken >= size

    connection.data_received = count  # type: ignore[method-assign]
    sent = 0
    for start in range(0, len(head), 1 << 14):
        piece = head[start : start + (1 << 14)]
        writer.write(piece)
        sent += len(piece)
        await until(partial(has_taken, sent))
        if connection.transport.is_closing():
            break
    return taken


class Flood:
    """Sends as fast as the server reads, and minds no end."""

    def __init__(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        self.sent, self._writer, self._data = 0, writer, data
        self._task = asyncio.create_task(self._send())

    async def _send(self) -> None:
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(self._data), 1 << 16):
                self._writer.write(self._data[start : start + (1 << 16)])
                await self._writer.drain()
                self.sent = start + (1 << 16)

    async def stalled(self) -> None:
        """Wait until nobody takes any more."""
        before = -1
        while before < self.sent:
            before = self.sent
            await asyncio.wait([self._task], timeout=0.1)

    async def abort(self) -> None:
        self._writer.transport.abort()
        await asyncio.wait([self._task])


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Read to the end; a reset is an end too."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def test_requests_are_answered_one_after_another() -> None:
    async with listening(PATIENT) as server:
        reader, writer = await server.connect()
        for _ in range(3):
            writer.write(GET)
            assert (await answer(reader))[0] == 200
        writer.write(GET + GET)
        assert [(await answer(reader))[0] for _ in range(2)] == [200, 200]
        assert server.sample("fer_connections") == 1
        writer.close()


async def test_who_says_nothing_is_ended() -> None:
    async with listening(PATIENT) as server:
        reader, writer = await server.connect()
        await until(lambda: server.state.connections)
        await server.pass_time(0.9 * PATIENT.header_timeout_s)
        assert server.state.connections
        await server.pass_time(0.2 * PATIENT.header_timeout_s)
        assert await ended(reader) == b""
        assert server.sample("fer_connections_dropped_total", reason="header_timeout") == 1
        assert server.sample("fer_connections") == 0
        writer.close()


@pytest.mark.parametrize("first", [b"", GET], ids=["first", "second"])
@pytest.mark.parametrize("drop", [b"X-A: b\r\n", b"y"], ids=["lines", "bytes"])
async def test_a_head_that_never_ends_is_ended(first: bytes, drop: bytes) -> None:
    async with listening(PATIENT) as server:
        reader, writer = await server.connect()
        if first:
            writer.write(first)
            assert (await answer(reader))[0] == 200
        writer.write(b"GET / HTTP/1.1\r\n")
        for _ in range(4):  # it drips all the time, and that does not help
            assert server.state.connections
            writer.write(drop)
            await server.pass_time(PATIENT.header_timeout_s / 3.5)
        assert await ended(reader) == b""
        assert server.sample("fer_connections_dropped_total", reason="header_timeout") == 1
        writer.close()


async def test_blank_lines_keep_no_connection() -> None:
    async with listening(PATIENT) as server:
        reader, writer = await server.connect()
        writer.write(GET)
        assert (await answer(reader))[0] == 200
        for _ in range(4):
            assert server.state.connections
            writer.write(b"\r\n")
            await server.pass_time(PATIENT.header_timeout_s / 3.5)
        assert await ended(reader) == b""
        writer.close()


async def test_an_idle_connection_is_ended() -> None:
    async with listening(PATIENT, idle_s=100) as server:
        reader, writer = await server.connect()
        writer.write(GET)
        assert (await answer(reader))[0] == 200
        await server.pass_time(99)  # longer than a head may take
        assert server.state.connections
        await server.pass_time(2)
        assert await ended(reader) == b""
        assert server.sample("fer_connections_dropped_total", reason="header_timeout") == 0
        writer.close()


async def test_a_body_may_take_longer_than_a_head() -> None:
    async with listening(PATIENT, timeout_s=600) as server:
        reader, writer = await server.connect()
        picture = flat(130)
        writer.write(
            b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(picture)
        )
        for start in range(0, len(picture), 20):
            writer.write(picture[start : start + 20])
            await server.pass_time(PATIENT.header_timeout_s / 3)
        assert (await answer(reader))[0] == 200
        writer.close()


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nx: " + b"y" * (MAX_HEAD_BYTES + (1 << 19)),
        b"GET /" + b"y" * (MAX_HEAD_BYTES + (1 << 19)),
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 101 + b"\r\n",
    ],
    ids=["header", "path", "headers"],
)
async def test_too_large_a_head_is_refused(head: bytes) -> None:
    async with listening(PATIENT) as server:
        reader, writer = await server.connect()
        sent = await send_until_refused(server, writer, head)
        assert sent <= MAX_HEAD_BYTES + (1 << 15)
        status, headers, body = await answer(reader)
        assert (status, json.loads(body)["code"]) == (431, "headers_too_large")
        assert headers["content-type"] == "application/problem+json"
        assert await ended(reader) == b""
        assert server.sample("fer_rejections_total", reason="headers_too_large") == 1
        writer.close()


async def test_a_head_beside_an_unanswered_request_is_bounded_too() -> None:
    engine = GatedEngine()
    async with listening(PATIENT, engine) as server:
        reader, writer = await server.connect()
        picture = flat(130)
        writer.write(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d" % len(picture))
        writer.write(b"\r\n\r\n" + picture)
        await asyncio.to_thread(engine.entered.wait)
        flood = Flood(writer, b"GET / HTTP/1.1\r\nx: " + b"y" * (64 << 20))
        await flood.stalled()
        assert flood.sent < 32 << 20  # most of it in the system's buffers
        engine.gate.set()
        assert (await answer(reader))[0] == 200
        assert (await answer(reader))[0] == 431
        await flood.abort()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /predict HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /predict HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_a_problem_too(nonsense: bytes) -> None:
    async with listening(PATIENT) as server:
        reader, writer = await server.connect()
        writer.write(nonsense)
        status, headers, body = await answer(reader)
        assert (status, json.loads(body)["code"]) == (400, "bad_request")
        assert headers["connection"] == "close"
        assert await ended(reader) == b""
        writer.close()


async def test_connections_are_bounded() -> None:
    async with listening(ConnectionLimits(2, 30.0)) as server:
        first, second = await server.connect(), await server.connect()
        for _, writer in (first, second):
            writer.write(GET)
        assert (await answer(first[0]))[0] == (await answer(second[0]))[0] == 200
        reader, writer = await server.connect()
        status, headers, body = await answer(reader)
        assert (status, json.loads(body)["code"]) == (503, "too_many_connections")
        assert headers["retry-after"] == "1"
        assert await ended(reader) == b""
        writer.close()
        first[1].close()
        await until(lambda: server.sample("fer_connections") <= 1)
        reader, writer = await server.connect()
        writer.write(GET)
        assert (await answer(reader))[0] == 200
        assert server.sample("fer_connections_dropped_total", reason="limit") == 1
        writer.close()
        second[1].close()


def unread(server: Listening) -> bool:
    """Return whether the server has stopped to write, because its client does not read."""
    (connection,) = server.state.connections
    assert isinstance(connection, BoundedProtocol)
    return connection.flow.write_paused


async def test_who_does_not_read_is_ended() -> None:
    async with listening(PATIENT) as server:
        # Small buffers, and a client that asks and asks.
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
        ask = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n"
        writer.write(ask * 1000)
        await until(lambda: unread(server))
        await server.pass_time(0.9 * PATIENT.header_timeout_s)
        assert server.state.connections
        await server.pass_time(0.2 * PATIENT.header_timeout_s)
        await until(lambda: not server.sample("fer_connections"))
        assert server.sample("fer_connections_dropped_total", reason="unread") == 1
        writer.transport.abort()


async def test_who_leaves_is_dropped() -> None:
    engine = GatedEngine()
    async with listening(PATIENT, engine, max_batch=1) as server:
        picture = flat(130)
        request = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(picture)
        writers = []
        for _ in range(8):
            _, writer = await server.connect()
            writer.write(request + picture)
            writers.append(writer)
        await asyncio.to_thread(engine.entered.wait)
        await until(lambda: server.sample("fer_stage_seconds_count", stage="decode") >= 8)
        for writer in writers:
            writer.close()
        await server.requests(8, "499")
        assert server.sample("fer_queue_faces") == 0
        assert server.app.state.service.admission.working == 0
        engine.gate.set()
        reader, writer = await server.connect()
        writer.write(request + picture)
        assert (await answer(reader))[0] == 200
        writer.close()
    assert engine.batches == [1, 1]  # of those that left, the one that was inside already


async def test_a_head_alone_is_answered_and_the_connection_goes_on() -> None:
    async with listening(PATIENT) as server:
        reader, writer = await server.connect()
        writer.write(GET.replace(b"GET", b"HEAD"))
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.write(GET)
        assert (await answer(reader))[0] == 200
        writer.close()


async def test_a_refused_upload_is_skipped_and_its_connection_goes_on() -> None:
    engine = GatedEngine()
    async with listening(PATIENT, engine, max_batch=1, queue_size=1) as server:
        picture = flat(130)
        head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
        waiting = []
        for _ in range(2):
            reader, writer = await server.connect()
            writer.write(head % len(picture) + picture)
            waiting.append((reader, writer))
            await asyncio.to_thread(engine.entered.wait)
        await until(lambda: server.app.state.service.admission.working >= 2)
        reader, writer = await server.connect()
        size = 5 << 20
        writer.write(head % size)
        status, headers, _ = await answer(reader)  # before any of the body
        assert (status, "retry-after" in headers, "connection" in headers) == (503, True, False)
        writer.write(b"x" * size + GET)
        assert (await answer(reader))[0] == 200
        writer.close()
        engine.gate.set()
        for reader, writer in waiting:
            assert (await answer(reader))[0] == 200
            writer.close()


def refuse_all(server: Listening, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody in, and see to it that early rejection says so."""
    error = Overloaded("The wait would be too long; try again later.", 1.0)
    monkeypatch.setattr(server.app.state.service.admission, "refusal", lambda *_: error)
    monkeypatch.setattr(server.app.state.service.admission, "enter", None)


def upload(size: int, further: bytes = b"") -> bytes:
    return (
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n%s\r\n" % (size, further)
        + b"x" * size
    )


async def test_who_is_turned_away_may_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(PATIENT, idle_s=1000) as server:
        refuse_all(server, monkeypatch)
        reader, writer = await server.connect()
        for _ in range(3):  # whole, and one behind the other
            writer.write(upload(20_000) + upload(0) + GET)
            for status in (503, 503, 200):
                assert (await answer(reader))[0] == status
        head, _, rest = upload(300_000).partition(b"xxxxx")
        writer.write(head)
        status, headers, body = await answer(reader)  # before any of the body
        assert (status, headers["retry-after"], json.loads(body)["code"]) == (
            503,
            "1",
            "overloaded",
        )
        for start in range(0, 300_000, 50_000):
            writer.write((b"xxxxx" + rest)[start : start + 50_000])
            await writer.drain()
        await until(lambda: not writer.transport.get_write_buffer_size())
        await server.pass_time(3 * PATIENT.header_timeout_s)  # idle; no head is overdue
        writer.write(GET)
        assert (await answer(reader))[0] == 200
        assert server.sample("fer_connections_dropped_total", reason="header_timeout") == 0
        refused = {"route": "/predict", "kind": "prediction", "method": "POST", "status": "503"}
        assert server.sample("fer_requests_total", **refused) == 7
        writer.close()


async def test_who_is_turned_away_and_trickles_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(PATIENT) as server:
        refuse_all(server, monkeypatch)
        reader, writer = await server.connect()
        writer.write(upload(300_000)[:1000])
        assert (await answer(reader))[0] == 503
        for _ in range(4):
            assert server.state.connections
            writer.write(b"x")
            await server.pass_time(PATIENT.header_timeout_s / 3.5)
        assert await ended(reader) == b""
        assert server.sample("fer_connections_dropped_total", reason="header_timeout") == 1
        writer.close()


async def test_a_request_on_its_way_at_shutdown_is_answered() -> None:
    async with listening(PATIENT) as server:
        reader, writer = await server.connect()
        writer.write(GET)
        assert (await answer(reader))[0] == 200
        for connection in list(server.state.connections):
            connection.shutdown()
        writer.write(GET)
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert await ended(reader) == b""
        silent, other = await server.connect()
        for connection in list(server.state.connections):
            connection.shutdown()
        assert await ended(silent) == b""
        writer.close()
        other.close()


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])
async def test_a_request_that_a_busy_loop_has_not_read_at_shutdown_is_answered() -> None:
    async with listening(PATIENT) as server:
        reader, writer = await server.connect()
        writer.write(GET)
        assert (await answer(reader))[0] == 200
        (leaving,) = server.state.connections
        ours, theirs = socket.socketpair()

        def keep_busy() -> None:
            # The loop has asked which sockets have something to read; next it looks at its timers.
            os.write(writer.get_extra_info("socket").fileno(), GET)
            time.sleep(2 * LAST_REQUEST_S)
            loop.remove_reader(ours)

        with ours, theirs:
            loop = asyncio.get_running_loop()
            loop.add_reader(ours, keep_busy)
            leaving.shutdown()
            theirs.send(b"now")
            status, headers, _ = await answer(reader)
            assert (status, headers["connection"]) == (200, "close")
            assert await ended(reader) == b""
        writer.close()


BOTH_LOOPS = pytest.mark.parametrize(
    "anyio_backend",
    [("asyncio", {"use_uvloop": True}), ("asyncio", {"use_uvloop": False})],
    ids=["uvloop", "asyncio"],
)


@BOTH_LOOPS
async def test_who_sends_no_more_gets_all_answers() -> None:
    engine = GatedEngine()
    async with listening(PATIENT, engine) as server:
        reader, writer = await server.connect()
        picture = flat(130)
        head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(picture)
        writer.write(head + picture + GET + head + picture)
        writer.write_eof()
        await asyncio.to_thread(engine.entered.wait)
        (connection,) = server.state.connections
        await asyncio.sleep(0.1)  # it is looked for meanwhile
        assert connection in server.state.connections
        engine.gate.set()
        assert [(await answer(reader))[0] for _ in range(3)] == [200, 200, 200]
        assert await ended(reader) == b""
        writer.close()


@BOTH_LOOPS
async def test_who_ends_as_the_answer_is_written_gets_it() -> None:
    async with listening(PATIENT) as server:
        for turns in range(200):
            reader, writer = await server.connect()
            writer.write(GET)
            for _ in range(turns % 20):  # until the end meets the answer on the event loop
                await asyncio.sleep(0)
            writer.write_eof()
            assert (await answer(reader))[0] == 200
            writer.close()


@BOTH_LOOPS
@pytest.mark.parametrize("how", ["close", "abort"])
async def test_who_leaves_altogether_is_noticed(how: str) -> None:
    engine = GatedEngine()
    async with listening(PATIENT, engine) as server:
        picture = flat(130)
        _, writer = await server.connect()
        writer.write(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d" % len(picture))
        writer.write(b"\r\n\r\n" + picture)
        await asyncio.to_thread(engine.entered.wait)
        getattr(writer.transport, how)()
        await server.requests(1, "499")
        assert not server.state.connections
        engine.gate.set()


@BOTH_LOOPS
@pytest.mark.parametrize("sent", [b"", GET[:20], b"POST /predict HTTP/1.1\r\nhost: x\r\n"])
async def test_who_sends_no_more_and_asked_nothing_is_ended(sent: bytes) -> None:
    async with listening(PATIENT) as server:
        reader, writer = await server.connect()
        writer.write(sent)
        writer.write_eof()
        assert await ended(reader) == b""
        writer.close()


def test_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [1024, 4096]

    def set_limits(_: int, pair: tuple[int, int]) -> None:
        limits[:] = pair

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", set_limits)
    assert allow_descriptors(500) == 500
    assert limits == [1024, 4096]
    assert allow_descriptors(2000) == 2000
    assert limits == [2128, 4096]
    assert allow_descriptors(8192) == 4096 - 128
    assert limits == [4096, 4096]
    limits[:] = [1024, resource.RLIM_INFINITY]
    assert allow_descriptors(8192) == 8192
    assert limits[0] == 8320
