"""Tests of `service.server.framing`: alone, and what a client sees of it over a real socket."""

import asyncio
import json
from dataclasses import dataclass, field

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import BadRequest, HeadersTooLarge, ServiceError, UnsupportedCoding
from service.server.framing import (
    CHUNKS_A_TURN,
    MAX_HEAD_BYTES,
    ChunkedBody,
    SizedBody,
    body_of,
    take_head,
)
from tests.service.made_pictures import flat
from tests.service.server.test_connections import (
    GET,
    PATIENT,
    Listening,
    answer,
    ended,
    listening,
)
from tests.waiting import until

HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
KEY = "0123456789abcdef"
PICTURE = flat(130)
SECOND = b"GET /health/live?smuggled HTTP/1.1\r\nhost: x\r\n\r\n"


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n" % (len(data), extension, data)


def upload(*headers: bytes) -> bytes:
    lines = b"".join(line + b"\r\n" for line in headers)
    return HEAD + lines + b"content-length: %d\r\n\r\n" % len(PICTURE) + PICTURE


async def exchange(server: Listening, *packets: bytes) -> list[tuple[int, str]]:
    """Send packets, end the sending, and return all answers: status and code."""
    reader, writer = await server.connect()
    for packet in packets:
        writer.write(packet)
        await writer.drain()
        for _ in range(20):  # apart, so that each is read alone
            await asyncio.sleep(0)
    writer.write_eof()
    answers = asyncio.StreamReader()
    answers.feed_data(await reader.read())
    answers.feed_eof()
    found = []
    while not answers.at_eof():
        status, _, body = await answer(answers)
        found.append((status, json.loads(body).get("code", "")))
    writer.close()
    return found


# Heads.


def test_a_head_is_taken_and_what_follows_is_left() -> None:
    buffer = bytearray(b"\r\n\r\n" + GET + b"rest")
    assert take_head(buffer) == GET
    assert buffer == b"rest"


@pytest.mark.parametrize("size", [1, 7, 40])
def test_a_head_in_pieces(size: int) -> None:
    buffer, found = bytearray(), []
    for start in range(0, len(GET), size):
        buffer += GET[start : start + size]
        found.append(take_head(buffer))
    assert found[:-1] == [None] * (len(found) - 1)
    assert found[-1] == GET


@pytest.mark.parametrize(
    "beginning",
    [
        b"\x16\x03\x01",
        b"get / HTTP/1.1\r\n",
        b"GET /\r\n",
        b"GET / HTTP/2.0\r\n",
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\r\na: b\n",
        b"SSH-2.0-x\r\n",
        b" GET /",
    ],
)
def test_what_can_become_no_head_is_refused_at_once(beginning: bytes) -> None:
    with pytest.raises(BadRequest):
        take_head(bytearray(beginning))


def test_a_head_is_bounded_however_it_arrives() -> None:
    head = b"GET / HTTP/1.1\r\nx: " + b"y" * (MAX_HEAD_BYTES - 23) + b"\r\n\r\n"
    assert take_head(bytearray(head)) == head
    longer = head.replace(b"x: ", b"xx: ")
    with pytest.raises(HeadersTooLarge):
        take_head(bytearray(longer))
    with pytest.raises(HeadersTooLarge):
        take_head(bytearray(longer[:MAX_HEAD_BYTES]))


HOSTS = {
    b"x": True,
    b"": True,
    b"a.b-c_d:8000": True,
    b"127.0.0.1:80": True,
    b"[::1]:8000": True,
    b"a:": True,
    b"a b": False,
    b"a/b": False,
    b"a@b": False,
    b"a,b": True,  # of a registered name, RFC 3986 allows it
    b"a:b": False,
    b"a:123456": False,
    b"[::1": False,
    b"\xc3\xa4": False,
    b"a?b": False,
}


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_one(host: bytes) -> None:
    if HOSTS[host]:
        body_of("1.1", [(b"host", host)])
        return
    with pytest.raises(BadRequest):
        body_of("1.1", [(b"host", host)])


# Bodies.


@dataclass
class Reading:
    """What a body came to: its content, where it ended, or that it is none."""

    content: bytes = b""
    rest: bytes = b""
    complete: bool = False
    error: str = ""


def read(data: bytes, size: int, body: SizedBody | ChunkedBody | None = None) -> Reading:
    """Read a body that arrives in pieces of a size."""
    body = body or ChunkedBody()
    buffer, found = bytearray(), Reading()
    try:
        for start in range(0, len(data), size):
            buffer += data[start : start + size]
            while not body.complete:
                found.content += body.take(buffer)
                if not body.paused:
                    break
    except ServiceError as error:
        found.error = error.code
    found.rest, found.complete = bytes(buffer), body.complete
    return found


SIZES = [1, 2, 3, 5, 8, 13, 1 << 20]


@pytest.mark.parametrize("size", SIZES)
def test_chunks_are_joined(size: int) -> None:
    data = chunk(b"ab") + chunk(b"c" * 300) + chunk(b"d", b';a;b=c;d="e f"') + b"000\r\n\r\n"
    found = read(data + SECOND, size)
    assert found.content == b"ab" + b"c" * 300 + b"d"
    assert found.complete
    assert SECOND.startswith(found.rest) or found.rest == SECOND
    sized = read(b"abcdef" + SECOND, size, SizedBody(6))
    assert (sized.content, sized.complete) == (b"abcdef", True)


@pytest.mark.parametrize("size", SIZES)
def test_trailers_are_dropped(size: int) -> None:
    data = chunk(b"ab") + b"0\r\nx-api-key: k\r\nx: \r\n\r\n"
    found = read(data + SECOND, size)
    assert (found.content, found.complete) == (b"ab", True)


def test_many_small_chunks_are_read_in_turns() -> None:
    body, buffer = ChunkedBody(), bytearray(chunk(b"a") * 1000 + b"0\r\n\r\n")
    turns = [len(body.take(buffer))]
    while body.paused:
        turns.append(len(body.take(buffer)))
    assert sum(turns) == 1000
    assert max(turns) == CHUNKS_A_TURN
    assert body.complete


MALFORMED = {
    "no size": b"\r\nab\r\n0\r\n\r\n",
    "a word": b"xyz\r\nab\r\n0\r\n\r\n",
    "signed": b"+2\r\nab\r\n0\r\n\r\n",
    "negative": b"-2\r\nab\r\n0\r\n\r\n",
    "prefixed": b"0x2\r\nab\r\n0\r\n\r\n",
    "underscored": b"0_2\r\nab\r\n0\r\n\r\n",
    "spaced before": b" 2\r\nab\r\n0\r\n\r\n",
    "spaced behind": b"2 \r\nab\r\n0\r\n\r\n",
    "spaced before an extension": b"2 ;a\r\nab\r\n0\r\n\r\n",
    "too large a number": b"fffffffffffffffff\r\nab\r\n0\r\n\r\n",
    "bare LF behind a size": b"2\nab\r\n0\r\n\r\n",
    "bare CR behind a size": b"2\rab\r\n0\r\n\r\n",
    "bare LF in an extension": b"2;a\nb\r\nab\r\n0\r\n\r\n",
    "bare LF in a quoted extension": b'2;a="\n"\r\nab\r\n0\r\n\r\n',
    "an extension without end": b"2;" + b"a" * 2000,
    "longer than its size": b"1\r\nab\r\n0\r\n\r\n",
    "shorter than its size": b"3\r\nab\r\n0\r\n\r\n",
    "bare LF behind data": b"2\r\nab\n0\r\n\r\n",
    "bare LF behind the last": b"2\r\nab\r\n0\n\r\n",
    "a trailer without colon": b"0\r\nab\r\n\r\n",
    "a trailer with bare LF": b"0\r\na: b\nc: d\r\n\r\n",
    "a folded trailer": b"0\r\na: b\r\n c\r\n\r\n",
    "a trailer with a space before the colon": b"0\r\na : b\r\n\r\n",
    "NUL in a trailer": b"0\r\na: \x00\r\n\r\n",
}


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_malformed_bodies_are_refused(case: str, size: int) -> None:
    assert read(MALFORMED[case], size).error == "bad_request"


@pytest.mark.parametrize(
    "trailers",
    [b"a:\r\n" * 20_000, b"a: " + b"b" * MAX_HEAD_BYTES + b"\r\n", b"a" * (1 << 20)],
    ids=["many", "long", "endless"],
)
@pytest.mark.parametrize("size", [1 << 12, 1 << 20])
def test_trailers_are_bounded(trailers: bytes, size: int) -> None:
    assert read(b"0\r\n" + trailers + b"\r\n", size).error == "headers_too_large"


@dataclass
class Theirs:
    """What uvicorn's parser makes of the same."""

    content: bytes = b""
    complete: int = 0
    errors: list[str] = field(default_factory=list)

    def on_body(self, data: bytes) -> None:
        self.content += data

    def on_message_complete(self) -> None:
        self.complete += 1


pieces = st.lists(
    st.one_of(
        st.binary(max_size=6).map(chunk),
        st.sampled_from([b"2\r\nab\r\n", b"0\r\n\r\n", b"0\r\n", b"\r\n", b"a: b\r\n", b";a=b"]),
        st.sampled_from(
            [b"\n", b"\r", b" ", b"0", b"1", b"f", b";", b"x", b":", b"+", b'"', b"\0"]
        ),
    ),
    max_size=8,
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(pieces, st.sampled_from([1, 3, 1 << 20]))
def test_whatever_is_taken_the_parser_takes_likewise(parts: list[bytes], size: int) -> None:
    data = b"".join(parts)
    found = read(data, size)
    if found.error or not found.complete:
        return
    used = len(data) - len(found.rest) if size > len(data) else len(data)
    theirs = Theirs()
    parser = httptools.HttpRequestParser(theirs)
    parser.feed_data(CHUNKED)
    try:
        parser.feed_data(data[:used])
    except httptools.HttpParserError:
        assert theirs.complete, f"only we take {data!r}"
    assert theirs.content == found.content
    assert theirs.complete


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ([(b"transfer-encoding", b"gzip, chunked")], UnsupportedCoding),
        ([(b"transfer-encoding", b"gzip"), (b"transfer-encoding", b"chunked")], UnsupportedCoding),
        ([(b"transfer-encoding", b"chunked, gzip")], BadRequest),
        ([(b"transfer-encoding", b"chunked, chunked")], BadRequest),
        ([(b"transfer-encoding", b"chunked,")], BadRequest),
        ([(b"transfer-encoding", b"chunked;q=1")], BadRequest),
        ([(b"transfer-encoding", b"identity")], BadRequest),
        ([(b"transfer-encoding", b"")], BadRequest),
        ([(b"transfer-encoding", b"chunked"), (b"content-length", b"3")], BadRequest),
        ([(b"content-length", b"3"), (b"content-length", b"3")], BadRequest),
        ([(b"content-length", b"3, 3")], BadRequest),
        ([(b"content-length", b"-3")], BadRequest),
        ([(b"content-length", b"\xb2")], BadRequest),
        ([(b"content-length", b"9" * 16)], BadRequest),
    ],
)
def test_ambiguous_lengths_are_refused(
    headers: list[tuple[bytes, bytes]], error: type[ServiceError]
) -> None:
    with pytest.raises(error):
        body_of("1.1", [(b"host", b"x"), *headers])


# What a client sees.

REFUSED = {
    "length and chunks": (HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    "chunks and length": (HEAD + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n", 400),
    "two lengths": (HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\n", 400),
    "twice the length": (HEAD + b"content-length: 3\r\ncontent-length: 3\r\n\r\n", 400),
    "a list of lengths": (HEAD + b"content-length: 3, 3\r\n\r\n", 400),
    "a signed length": (HEAD + b"content-length: +3\r\n\r\n", 400),
    "a length in hex": (HEAD + b"content-length: 0x3\r\n\r\n", 400),
    "an empty length": (HEAD + b"content-length: \r\n\r\n", 400),
    "gzip in chunks": (HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n", 501),
    "chunks in gzip": (HEAD + b"transfer-encoding: chunked, gzip\r\n\r\n", 400),
    "chunks twice": (
        HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        400,
    ),
    "an unknown coding": (HEAD + b"transfer-encoding: xchunked\r\n\r\n", 400),
    "identity": (HEAD + b"transfer-encoding: identity\r\n\r\n", 400),
    "a quoted coding": (HEAD + b'transfer-encoding: "chunked"\r\n\r\n', 400),
    "a tab in the coding's value": (HEAD + b"transfer-encoding: \x0bchunked\r\n\r\n", 400),
    "a space before the colon": (HEAD + b"transfer-encoding : chunked\r\n\r\n", 400),
    "a space before the name": (HEAD + b" transfer-encoding: chunked\r\n\r\n", 400),
    "a folded header": (HEAD + b"transfer-encoding:\r\n chunked\r\n\r\n", 400),
    "a bare LF": (HEAD + b"a: b\ntransfer-encoding: chunked\r\n\r\n", 400),
    "a bare CR": (HEAD + b"a: b\rtransfer-encoding: chunked\r\n\r\n", 400),
    "bare LFs alone": (b"GET / HTTP/1.1\nhost: x\n\n", 400),
    "NUL in a value": (HEAD + b"a: \x00\r\n\r\n", 400),
    "chunks by HTTP/1.0": (CHUNKED.replace(b"1.1", b"1.0"), 400),
    "HTTP/2.0": (GET.replace(b"1.1", b"2.0"), 400),
    "HTTP/1.2": (GET.replace(b"1.1", b"1.2"), 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "HTTP/2's preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "no host": (b"GET /health/live HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /health/live HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n", 400),
    "an invalid host": (b"GET /health/live HTTP/1.1\r\nhost: a b\r\n\r\n", 400),
    "another invalid host": (b"GET /health/live HTTP/1.1\r\nhost: a/b\r\n\r\n", 400),
    "a space before the version": (b"GET / x HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "tabs in the first line": (b"GET\t/\tHTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "CONNECT": (b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n", 400),
    "a head of 70 KB in one packet": (HEAD + b"a: " + b"b" * 70_000 + b"\r\n\r\n", 431),
}


@pytest.mark.anyio
@pytest.mark.parametrize("case", REFUSED)
async def test_what_could_be_read_in_two_ways_is_refused_once(case: str) -> None:
    request, status = REFUSED[case]
    async with listening(PATIENT) as server:
        (found,) = await exchange(server, request + b"0\r\n\r\n" + SECOND)
        assert found[0] == status
        (found,) = await exchange(server, request, b"0\r\n\r\n" + SECOND)
        assert found[0] == status
        assert not server.app.state.metrics.registry.get_sample_value(
            "fer_requests_total",
            {"route": "/health/live", "kind": "other", "method": "GET", "status": "200"},
        )


@pytest.mark.anyio
@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_body_is_answered_once(case: str) -> None:
    async with listening(PATIENT) as server:
        for packets in ([CHUNKED + MALFORMED[case] + SECOND], [CHUNKED, MALFORMED[case], SECOND]):
            (found,) = await exchange(server, *packets)
            assert found[0] == 400
        assert server.app.state.service.admission.working == 0


@pytest.mark.anyio
async def test_a_request_whose_body_breaks_is_given_up_at_once() -> None:
    async with listening(PATIENT) as server:
        admission = server.app.state.service.admission
        reader, writer = await server.connect()
        writer.write(CHUNKED + chunk(PICTURE[:9]))
        await until(lambda: admission.uploading)
        writer.write(b"nonsense\r\n")
        assert (await answer(reader))[0] == 400
        await until(lambda: not admission.uploading)
        assert server.state.connections  # the client may still send
        assert await ended(reader) == b""
        writer.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "request_line",
    [
        b"GET http://x/health/live HTTP/1.1",
        b"GET http://other:1/health/live HTTP/1.1",
        b"GET /health/live HTTP/1.0",
        b"\r\nGET /health/live HTTP/1.1",
    ],
)
async def test_unusual_but_right(request_line: bytes) -> None:
    async with listening(PATIENT) as server:
        assert await exchange(server, request_line + b"\r\nhost: x\r\n\r\n") == [(200, "")]


@pytest.mark.anyio
@pytest.mark.parametrize("parted", [False, True], ids=["one packet", "two packets"])
@pytest.mark.parametrize("head_key", [b"", b"x-api-key: another-key-0123\r\n"])
@pytest.mark.parametrize(
    "trailer",
    [b"x-api-key: " + KEY.encode(), b"authorization: Bearer " + KEY.encode()],
    ids=["key", "bearer"],
)
async def test_a_key_in_a_trailer_is_none(trailer: bytes, head_key: bytes, parted: bool) -> None:
    head = CHUNKED[:-2] + head_key + b"\r\n"
    rest = chunk(PICTURE) + b"0\r\n" + trailer + b"\r\n\r\n"
    async with listening(PATIENT, api_keys=(KEY,)) as server:
        packets = (head, rest) if parted else (head + rest,)
        assert await exchange(server, *packets) == [(401, "unauthorized")]


@pytest.mark.anyio
async def test_other_trailers_change_nothing() -> None:
    trailers = b"x-request-id: theirs\r\ncontent-type: text/plain\r\ncontent-length: 3\r\n"
    trailers += (
        b"transfer-encoding: gzip\r\nhost: y\r\nconnection: close\r\nexpect: 100-continue\r\n"
    )
    async with listening(PATIENT) as server:
        reader, writer = await server.connect()
        for _ in range(2):
            writer.write(CHUNKED + chunk(PICTURE) + b"0\r\n" + trailers + b"\r\n")
            status, headers, _ = await answer(reader)
            assert (status, "connection" in headers) == (200, False)
            assert headers["x-request-id"] != "theirs"
        writer.close()


@pytest.mark.anyio
async def test_trailers_without_end_are_refused() -> None:
    async with listening(PATIENT) as server:
        (found,) = await exchange(server, CHUNKED + chunk(PICTURE) + b"0\r\n" + b"a:\r\n" * 50_000)
        assert found == (431, "headers_too_large")


UPGRADES = {
    "h2c": (b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAMAAABk"),
    "websocket": (b"connection: upgrade", b"upgrade: websocket", b"sec-websocket-version: 13"),
    "unknown": (b"connection: upgrade", b"upgrade: tea/1, h2c"),
    "nothing": (b"connection: upgrade",),
    "without connection": (b"upgrade: h2c",),
}


@pytest.mark.anyio
@pytest.mark.parametrize("case", UPGRADES)
async def test_an_upgrade_is_ignored(case: str) -> None:
    request = upload(*UPGRADES[case])
    head, body = request[: -len(PICTURE)], request[-len(PICTURE) :]
    async with listening(PATIENT) as server:
        for packets in ([request + GET], [head, body + GET], [head + body[:9], body[9:], GET]):
            assert await exchange(server, *packets) == [(200, ""), (200, "")]
        smuggled = HEAD + b"\r\n".join(UPGRADES[case]) + b"\r\ncontent-length: %d\r\n\r\n"
        # A body that is a request is a body.
        (found,) = await exchange(server, smuggled % len(SECOND), SECOND)
        assert found == (400, "bad_image")
        chunked = CHUNKED[:-2] + b"\r\n".join(UPGRADES[case]) + b"\r\n\r\n"
        assert await exchange(server, chunked, chunk(PICTURE) + b"0\r\n\r\n") == [(200, "")]


@pytest.mark.anyio
async def test_pipelined_requests_are_answered_in_order_and_none_is_begun_early() -> None:
    async with listening(PATIENT) as server:
        found = await exchange(
            server, upload() + GET + upload() + b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n"
        )
        assert found == [(200, ""), (200, ""), (200, ""), (404, "not_found")]


@pytest.mark.anyio
async def test_a_broken_request_behind_a_good_one_is_answered_after_it() -> None:
    async with listening(PATIENT) as server:
        found = await exchange(server, GET + b"nonsense\r\n\r\n" + GET)
        assert found == [(200, ""), (400, "bad_request")]


@pytest.mark.anyio
async def test_nothing_is_left_when_a_client_goes_in_the_middle_of_chunks() -> None:
    async with listening(PATIENT) as server:
        reader, writer = await server.connect()
        writer.write(CHUNKED + chunk(PICTURE)[:40])
        writer.write_eof()
        assert await ended(reader) == b""
        await until(lambda: not server.state.connections)
        assert server.app.state.service.admission.uploading == 0
        writer.close()
