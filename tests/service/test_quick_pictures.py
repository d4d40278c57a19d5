"""Quick pictures are decoded by the queue's worker where it shares the cores with the pool."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from service.pictures import finder, plain_jpeg
from service.pictures.decode import Picture, decode
from tests.service.made_pictures import encoded
from tests.service.serving import FakeEngine, serving
from tests.service.test_api import assert_problem, sample

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(plain_jpeg.decode_jpeg is None, reason="simplejpeg is not installed"),
]


class SharingEngine(FakeEngine):
    """Says that it computes on the cores of this machine."""

    device = "cpu"


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the thread of every decoding."""
    threads: list[str] = []

    def noting(*arguments: object) -> Picture:
        threads.append(threading.current_thread().name)
        return decode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(finder, "decode", noting)
    return threads


@pytest.fixture
async def served(anyio_backend: str) -> AsyncIterator[tuple[httpx.AsyncClient, FastAPI]]:
    """Serve with an engine that fills the cores."""
    async with serving(SharingEngine(), torch_threads=256) as pair:
        yield pair


def grey(side: int, level: int = 130, kind: str = "JPEG") -> bytes:
    return encoded(Image.new("RGB", (side, side), (level,) * 3), kind)


async def ask(client: httpx.AsyncClient, image: bytes, query: str = "") -> httpx.Response:
    return await client.post(f"/predict{query}", content=image)


@pytest.mark.parametrize(
    ("image", "query", "quick"),
    [
        (grey(48), "", True),
        (grey(112), "", True),
        (grey(512), "?detect=never", True),
        (grey(513), "?detect=never", False),  # longer than the network takes
        (grey(113), "", False),  # faces are looked for
        (grey(48), "?detect=always", False),
        (grey(48, kind="PNG"), "", False),  # what is not plain may take any time
    ],
)
async def test_who_decodes(
    served: tuple[httpx.AsyncClient, FastAPI],
    decoders: list[str],
    image: bytes,
    query: str,
    quick: bool,
) -> None:
    response = await ask(served[0], image, query)
    assert response.status_code == 200, response.text
    [thread] = decoders
    assert (thread == "fer-batcher") is quick


@pytest.mark.parametrize("engine", [FakeEngine, SharingEngine], ids=["elsewhere", "free cores"])
async def test_other_engines_leave_it_to_the_pool(
    monkeypatch: pytest.MonkeyPatch, decoders: list[str], engine: Callable[[], FakeEngine]
) -> None:
    monkeypatch.setattr("service.config.count_cores", lambda: 64)
    async with serving(engine()) as (client, _):
        assert (await ask(client, grey(48))).status_code == 200
    assert decoders[0].startswith("decode-")


async def test_the_answer_is_the_same(served: tuple[httpx.AsyncClient, FastAPI]) -> None:
    async with serving() as (pooled, _):
        answers = [(await ask(client, grey(64))).json() for client in (served[0], pooled)]
    for answer in answers:
        timing = answer.pop("timing")
        assert min(timing.values()) >= 0
        parts = timing["decode_ms"] + timing["queue_ms"] + timing["inference_ms"]
        assert parts <= timing["total_ms"] + 0.01
    assert answers[0] == answers[1]
    assert answers[0]["faces"][0]["emotion"] == "happiness"


async def test_it_is_counted_as_any_other(served: tuple[httpx.AsyncClient, FastAPI]) -> None:
    client, app = served
    await ask(client, grey(48))
    assert sample(app, "fer_stage_seconds_count", stage="decode") == 1
    assert sample(app, "fer_image_pixels_sum") == 48 * 48
    assert sample(app, "fer_faces_total", emotion="happiness") == 1


async def test_a_broken_one_harms_nobody(served: tuple[httpx.AsyncClient, FastAPI]) -> None:
    whole = grey(256, kind="JPEG")
    broken = whole[: whole.index(b"\xff\xda") + 4] + b"\xff\xd9"
    images = [broken if place % 4 == 1 else grey(48) for place in range(12)]
    answers = await asyncio.gather(*(ask(served[0], i, "?detect=never") for i in images))
    for place, answer in enumerate(answers):
        if place % 4 == 1:
            assert_problem(answer, 400, "bad_image")
        else:
            assert answer.status_code == 200, answer.text
    assert sample(served[1], "fer_rejections_total", reason="bad_image") == 3
