"""Fuzzing of `service.server.connections`: hostile streams of requests, trailers and pipelines.

`FER_FUZZ_INPUTS` and `FER_FUZZ_SEED` as for the pictures' fuzzing; a tenth of the inputs is used.
"""

import asyncio
import contextlib
import os
import random
import re
import socket
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httptools
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.server.connections import BoundedProtocol
from service.telemetry.metrics import Metrics
from tests.service.made_pictures import flat
from tests.service.server.test_connections import GET, PATIENT, listening
from tests.waiting import until

INPUTS = int(os.environ.get("FER_FUZZ_INPUTS", "240000")) // 10
SEED = int(os.environ.get("FER_FUZZ_SEED", "0"))
MAX_SECONDS = 5.0  # beside anything else that the host does
MAX_GROWTH_BYTES = 64 << 20
DOCUMENTED = {200, 400, 401, 404, 405, 408, 413, 415, 431, 501, 503}

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

LINES = [
    b"GET /health/live HTTP/1.1",
    b"POST /predict HTTP/1.1",
    b"POST /predict?detect=never HTTP/1.1",
    b"HEAD / HTTP/1.1",
    b"GET / HTTP/1.0",
    b"GET http://x/nowhere HTTP/1.1",
    b"GET / HTTP/2.0",
    b"BREW / HTTP/1.1",
]
HEADERS = [
    b"host: x",
    b"host: x",
    b"Host: y:80",
    b"content-type: image/jpeg",
    b"x-request-id: a",
    b"x-api-key: k",
    b"connection: close",
    b"connection: keep-alive",
    b"expect: 100-continue",
    b"content-length: 3",
    b"transfer-encoding: chunked",
    b"transfer-encoding: gzip, chunked",
    b"transfer-encoding : chunked",
    b"te: trailers",
    b"trailer: x-api-key",
    b" folded",
    b"a: \x00",
    b"x: " + b"y" * 3000,
]
INSIDE = b"GET /inside HTTP/1.1\r\nhost: x\r\n\r\n"
# Of the others the parser makes something even there; here no trailer means anything.
_FRAMING = (b"content-length", b"transfer-encoding", b"connection")
TRAILERS = [line for line in HEADERS if not line.startswith(_FRAMING)]
ENDS = [b"\r\n"] * 300 + [b"\n", b"\r", b"\r\r\n", b" \r\n", b"\x0b\r\n"]
SIZES = [b"%x", b"%x", b"%x", b"%X;a=b", b"00%x", b"+%x", b"0x%x", b"%x ", b"%x;" + b"e" * 50]


def head(chance: random.Random, *headers: bytes) -> bytes:
    chosen = [b"host: x", *headers]
    for _ in range(chance.choice((0, 0, 1, 2, 4))):
        chosen.insert(chance.randrange(len(chosen) + 1), chance.choice(HEADERS))
    if chance.random() < 0.05:
        chosen += [b"a:"] * chance.choice((90, 200, 5000))
    lines = [chance.choice(LINES), *chosen, b""]
    return b"".join(line + chance.choice(ENDS) for line in lines)


def chunked(chance: random.Random, content: bytes) -> bytes:
    parts, at = [], 0
    while at < len(content):
        piece = content[at : at + chance.choice((1, 3, 17, 100, 5000))]
        at += len(piece)
        size = chance.choice(SIZES if chance.random() < 0.1 else SIZES[:3])
        parts.append(size % len(piece) + chance.choice(ENDS) + piece + chance.choice(ENDS))
    trailers = chance.choices(TRAILERS, k=chance.choice((0, 0, 1, 3)))
    if chance.random() < 0.05:
        trailers += [b"a:"] * chance.choice((100, 10_000, 30_000))
    lines = [b"0", *trailers, b""]
    return b"".join(parts) + b"".join(line + chance.choice(ENDS) for line in lines)


def stream(chance: random.Random) -> bytes:
    """Return one to many requests behind each other, of which some are spoiled."""
    parts = []
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        content = chance.choice(
            (b"", b"abc", flat(130), b"GET /inside HTTP/1.1\r\nhost: x\r\n\r\n")
        )
        kind = chance.random()
        if kind < 0.4:
            parts.append(head(chance, b"transfer-encoding: chunked") + chunked(chance, content))
        elif kind < 0.8:
            parts.append(head(chance, b"content-length: %d" % len(content)) + content)
        elif kind < 0.85:
            parts.append(head(chance) * chance.choice((2, 50, 500)))
        else:
            parts.append(head(chance))
    data = bytearray(b"".join(parts))
    for _ in range(chance.choice((0, 0, 0, 1, 2))):
        place = chance.randrange(len(data))
        data[place : place + chance.randrange(3)] = chance.choice((b"", b"\r\n", b"\n", b"0", b":"))
    return bytes(data)


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    """Cut a stream into packets, as a network may."""
    places = sorted(chance.choices(range(len(data) + 1), k=chance.choice((0, 0, 1, 3, 20))))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class Wire(asyncio.Transport):
    """A transport to nobody."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__({"socket": connection})
        self.closed = False

    def write(self, data: Any) -> None:
        pass

    def write_eof(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


Request = tuple[bytes, bytes, bytes]
_STATUS = re.compile(rb"^HTTP/1\.1 (\d{3}) ", re.MULTILINE)


class Theirs:
    """The requests of a stream, as uvicorn's parser reads it alone."""

    def __init__(self, data: bytes) -> None:
        self.requests: list[Request] = []
        self._url = self._body = b""
        self._parser = httptools.HttpRequestParser(self)
        # As uvicorn does: what follows a request that ends its connection is parsed on.
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)
        with contextlib.suppress(httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.requests.append((self._parser.get_method(), self._url, self._body))


class Recorder:
    """An application that answers all requests, and keeps those that came whole."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        query = scope["query_string"]
        url = scope["raw_path"] + (b"?" + query if query else b"")
        self.requests.append((scope["method"].encode(), url, body))
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


async def ours(
    packets: list[bytes], config: uvicorn.Config, recorder: Recorder, metrics: Metrics
) -> list[Request]:
    """The requests that reach the application whole."""
    recorder.requests = []
    state = ServerState()
    protocol = BoundedProtocol(PATIENT, metrics, config=config, server_state=state, app_state={})
    here, there = socket.socketpair()
    with here, there:
        wire = Wire(here)
        protocol.connection_made(wire)
        for packet in packets:
            protocol.data_received(packet)
            await asyncio.sleep(0)
        turns, before = 0, 0
        while turns < 10:  # without a further request
            turns = 0 if len(recorder.requests) > before else turns + 1
            before = len(recorder.requests)
            await asyncio.sleep(0)
        wire.closed = True
        protocol.connection_lost(None)
        await until(lambda: not state.tasks)
    return recorder.requests


async def test_no_stream_is_read_otherwise_than_by_the_parser(metrics: Metrics) -> None:
    recorder = Recorder()
    config = uvicorn.Config(recorder, log_config=None, access_log=False, ws="none")
    config.load()
    chance = random.Random(f"{SEED}-streams")
    some = 0
    for _ in range(INPUTS):
        data = stream(chance)
        read = await ours(cut(data, chance), config, recorder, metrics)
        theirs = [(m, plain(url), body) for m, url, body in Theirs(data).requests[: len(read)]]
        assert read == theirs, data
        some += len(read) > 0
    assert some > INPUTS / 4  # else they were spoiled beyond what a parser looks at


async def test_hostile_streams_are_answered_and_leave_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    chance = random.Random(f"{SEED}-answers")
    seen: Counter[str] = Counter()
    slowest, before = 0.0, 0
    inputs = INPUTS // 4
    async with listening(PATIENT) as server:
        for number in range(inputs):
            if number == min(500, inputs // 4):  # what libraries keep for good they have by now
                before = resident_bytes()
            began = time.monotonic()
            seen.update(await statuses(server.port, cut(stream(chance), chance)))
            slowest = max(slowest, time.monotonic() - began)
        grown = resident_bytes() - before
        assert {int(status) for status in seen} <= DOCUMENTED
        assert (await statuses(server.port, [GET])) == ["200"]
        await until(lambda: not server.state.connections)
        admission = server.app.state.service.admission
        assert (admission.working, admission.uploading) == (0, 0)
    assert slowest < MAX_SECONDS
    assert grown < MAX_GROWTH_BYTES
    with capsys.disabled():
        line = f"{inputs} streams: {dict(seen)}, slowest {1e3 * slowest:.0f} ms"
        sys.stdout.write(f"\n{line}, {grown / 2**20:+.1f} MiB\n")


async def statuses(port: int, packets: list[bytes]) -> list[str]:
    """Send packets, then nothing more; return the statuses of all answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for packet in packets:
        writer.write(packet)
        await asyncio.sleep(0)
    writer.write_eof()
    answers = await reader.read()
    writer.close()
    return [status.decode() for status in _STATUS.findall(answers) if status != b"100"]


def plain(url: bytes) -> bytes:
    parsed = httptools.parse_url(url)
    return parsed.path + (b"?" + parsed.query if parsed.query else b"")
