"""Tests of `service.http.express` over a real socket: it answers as the ordinary way does."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from PIL import Image

from service.answers import Answers
from service.http.express import Errand
from service.pictures import plain_jpeg
from tests.service.made_pictures import encoded
from tests.service.server.test_connections import PATIENT, Listening, answer, ended, listening
from tests.service.serving import BrokenEngine, FakeEngine, GatedEngine

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(plain_jpeg.decode_jpeg is None, reason="simplejpeg is not installed"),
]

KEY = "0123456789abcdef"
BOUNDARY = b"----a-boundary"


class Sharing(FakeEngine):
    """Says that it computes on the cores of this machine."""

    device = "cpu"


class Gated(GatedEngine, Sharing):
    """Likewise, once it is let."""


class Broken(BrokenEngine, Sharing):
    """Likewise, but on dark faces."""


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Errand]:
    """Note every request that goes the short way."""
    errands: list[Errand] = []
    begin = Errand.begin

    def noting(errand: Errand) -> None:
        errands.append(errand)
        begin(errand)

    monkeypatch.setattr(Errand, "begin", noting)
    return errands


@asynccontextmanager
async def crowded(engine: FakeEngine | None = None, **settings: Any) -> AsyncIterator[Listening]:
    """Listen before an engine that fills the cores."""
    async with listening(PATIENT, engine or Sharing(), torch_threads=256, **settings) as server:
        yield server


def grey(side: int = 48, level: int = 130, kind: str = "JPEG") -> bytes:
    return encoded(Image.new("RGB", (side, side), (level,) * 3), kind)


def broken() -> bytes:
    whole = grey(256)
    return whole[: whole.index(b"\xff\xda") + 16] + b"\xff\xd9"


def post(body: bytes, *headers: bytes, url: bytes = b"/predict") -> bytes:
    lines = [b"POST %s HTTP/1.1" % url, b"host: x", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def form(image: bytes, name: bytes = b"image") -> bytes:
    head = b'--%s\r\ncontent-disposition: form-data; name="%s"; filename="a.jpg"\r\n\r\n'
    body = head % (BOUNDARY, name) + image + b"\r\n--%s--\r\n" % BOUNDARY
    return post(body, b"content-type: multipart/form-data; boundary=" + BOUNDARY)


SHORT = {
    "raw": post(grey(), b"content-type: image/jpeg"),
    "untyped": post(grey()),
    "form": form(grey()),
    "named": post(grey(), b"x-request-id: mine.1"),
    "query": post(grey(512), url=b"/predict?detect=never&max_faces=3"),
    "broken": post(broken(), url=b"/predict?detect=never"),
}
ORDINARY = {
    "another kind": post(grey(kind="PNG")),
    "to be searched": post(grey(113)),
    "large": post(grey(48) + bytes(6000), b"content-type: image/jpeg"),
    "no picture": post(b"text", b"content-type: text/plain"),
    "nothing": post(b""),
    "an empty part": form(b""),
    "another part": form(grey(), b"photo"),
    "no boundary": post(grey(), b"content-type: multipart/form-data"),
    "a wrong query": post(grey(), url=b"/predict?detect=perhaps"),
    "compressed": post(grey(), b"content-encoding: gzip"),
    "another path": post(grey(), url=b"/predictions"),
    "a path below": post(grey(), url=b"/predict/batch"),
}
LIMITS = {"max_image_bytes": 6000}


async def ask(server: Listening, request: bytes, pieces: int = 1) -> Any:
    """Send a request, its head apart where it goes in two pieces; on a connection of its own."""
    reader, writer = await server.connect()
    head, _, body = request.partition(b"\r\n\r\n")
    if pieces == 1:
        writer.write(request)
    else:
        writer.write(head + b"\r\n\r\n")
        await asyncio.sleep(0.02)
        writer.write(body)
    status, headers, text = await answer(reader)
    writer.close()
    return status, headers, json.loads(text)


def comparable(found: tuple[int, dict[str, str], dict[str, Any]]) -> Any:
    """Leave out what no two answers share: times, and the names of requests without one."""
    status, headers, body = found
    body.pop("timing", None)
    name = headers.pop("x-request-id")
    if body.get("instance"):
        assert body["instance"].endswith(f":{name}")
    kept = {key: value for key, value in headers.items() if key not in ("date", "content-length")}
    return status, kept, {k: v for k, v in body.items() if k != "instance"}, name


@pytest.mark.parametrize("case", [*SHORT, *ORDINARY])
async def test_the_answer_is_the_same_in_either_way(case: str, begun: list[Errand]) -> None:
    request = (SHORT | ORDINARY)[case]
    async with crowded(**LIMITS) as server:
        whole = comparable(await ask(server, request))
        assert bool(begun) is (case in SHORT)
        parted = comparable(await ask(server, request, pieces=2))
        assert len(begun) <= 1
    assert whole[:3] == parted[:3]
    random = re.compile("[0-9a-f]{16}")
    for name in (whole[3], parted[3]):
        assert name == "mine.1" if case == "named" else random.fullmatch(name)


@pytest.mark.parametrize("case", SHORT)
async def test_it_is_counted_as_in_the_ordinary_way(case: str, begun: list[Errand]) -> None:
    figures = []
    for pieces in (1, 2):
        async with crowded(**LIMITS) as server:
            await ask(server, SHORT[case], pieces)
            figures.append(
                {
                    (sample.name, *sorted(sample.labels.items())): sample.value
                    for metric in server.app.state.metrics.registry.collect()
                    for sample in metric.samples
                    if sample.name.startswith("fer_")
                    and not re.search("_sum$|_bucket$|_created$|seconds$|ready", sample.name)
                    and sample.name not in ("fer_connections", "fer_engine_busy_seconds_total")
                }
            )
    assert len(begun) == 1
    assert figures[0] == figures[1]


async def test_keys_are_asked_for(begun: list[Errand]) -> None:
    async with crowded(api_keys=(KEY,)) as server:
        status, headers, _ = await ask(server, post(grey()))
        assert status == 401
        assert headers["www-authenticate"]
        assert not begun
        assert (await ask(server, post(grey(), b"x-api-key: " + KEY.encode())))[0] == 200
        assert begun


async def test_what_pages_of_other_origins_may_read_goes_the_ordinary_way(
    begun: list[Errand],
) -> None:
    async with crowded(cors_origins=("https://example.org",)) as server:
        request = post(grey(), b"origin: https://example.org")
        assert (await ask(server, request))[1]["access-control-allow-origin"]
        assert (await ask(server, post(grey())))[1]["vary"] == "origin"  # in lower case here
        assert not begun


async def test_one_after_another_on_a_connection(begun: list[Errand]) -> None:
    async with crowded() as server:
        reader, writer = await server.connect()
        for _ in range(3):
            writer.write(post(grey()))
            assert (await answer(reader))[0] == 200
        assert len(begun) == 3
        # The second comes while the first is under way: it goes the ordinary way, after it.
        writer.write(post(grey(level=20)) + post(grey(level=230)) + post(grey(kind="PNG")))
        found = [json.loads((await answer(reader))[2])["faces"][0]["emotion"] for _ in range(3)]
        assert len({*found}) == 3
        assert len(begun) == 4
        writer.close()


async def test_who_leaves_is_dropped_and_leaves_nothing_behind(begun: list[Errand]) -> None:
    engine = Gated()
    async with crowded(engine) as server:
        service = server.app.state.service
        first = asyncio.create_task(ask(server, post(grey())))
        await asyncio.to_thread(engine.entered.wait)
        _, writer = await server.connect()
        writer.write(post(grey(level=20)))
        while len(begun) < 2:
            await asyncio.sleep(0)
        assert service.admission.working == 2
        assert service.memory.held_bytes == len(grey()) + len(grey(level=20))
        writer.transport.abort()
        while not begun[1].disconnected:
            await asyncio.sleep(0)
        assert service.admission.working == 1
        engine.gate.set()
        assert (await first)[0] == 200
        assert (service.admission.working, service.memory.held_bytes) == (0, 0)
        counted = {"route": "/predict", "method": "POST"}
        assert server.sample("fer_requests_total", status="499", **counted) == 1
        assert server.sample("fer_requests_total", status="200", **counted) == 1
    assert sum(engine.batches) == 1


async def test_a_deadline_ends_it_and_the_connection_goes_on(begun: list[Errand]) -> None:
    engine = Gated()
    async with crowded(engine, timeout_s=0.1) as server:
        reader, writer = await server.connect()
        writer.write(post(grey(), b"x-request-id: late"))
        status, headers, body = await answer(reader)
        assert (status, headers["content-type"]) == (504, "application/problem+json")
        assert json.loads(body)["instance"] == "urn:attention-fer:request:late"
        assert server.app.state.service.admission.working == 0
        engine.gate.set()
        writer.write(post(grey()))
        assert (await answer(reader))[0] == 200
        writer.close()


async def test_a_failure_of_the_engine_is_a_problem(begun: list[Errand]) -> None:
    async with crowded(Broken()) as server:
        reader, writer = await server.connect()
        writer.write(post(grey(level=0)))
        status, _, body = await answer(reader)
        assert (status, json.loads(body)["code"]) == (500, "inference_failed")
        writer.write(post(grey()))
        assert (await answer(reader))[0] == 200
        writer.close()


async def test_a_defect_is_a_problem_and_in_the_log(
    begun: list[Errand], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a secret")

    monkeypatch.setattr(Answers, "of_face", fail)
    async with crowded() as server:
        status, _, body = await ask(server, post(grey()))
        assert (status, body["code"]) == (500, "internal_error")
        assert "secret" not in json.dumps(body)
    assert "unexpected failure of a request" in caplog.text


async def test_the_last_answer_says_that_it_is_the_last(begun: list[Errand]) -> None:
    engine = Gated()
    async with crowded(engine) as server:
        reader, writer = await server.connect()
        writer.write(post(grey()))
        await asyncio.to_thread(engine.entered.wait)
        (connection,) = server.state.connections
        connection.shutdown()
        engine.gate.set()
        status, headers, _ = await answer(reader)
        assert (status, headers["connection"]) == (200, "close")
        assert await ended(reader) == b""
        writer.close()


async def test_a_body_that_cannot_be_parsed_reaches_nobody(begun: list[Errand]) -> None:
    async with crowded() as server:
        reader, writer = await server.connect()
        head = b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head + b"4\r\n\xff\xd8\xff\xe0\r\nnonsense\r\n")
        assert (await answer(reader))[0] == 400
        assert await ended(reader) == b""
        writer.close()
        assert not begun
        assert server.app.state.service.admission.uploading == 0
