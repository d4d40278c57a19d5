"""Tests of POST /explain: the whole application in process."""

import asyncio
import json
from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from typing import Any

import httpx
import numpy as np
import pytest
import skimage.data
from PIL import Image

from service.config import SHIPPED, detector_path
from service.drawing.explainer import MAX_FACES, Drawing
from service.engine.torch_engine import TorchEngine
from service.http.explain import prefers_png
from service.http.schemas import Explanation
from service.pictures.detector import Detection, Detector
from tests.service.made_pictures import encoded, flat, ramp
from tests.service.serving import BrokenEngine, Exchange, FakeEngine, GatedEngine, serving
from tests.service.test_api import PNG, assert_problem, form, sample
from tests.waiting import until
from training.model.checkpoint import load_checkpoint

pytestmark = pytest.mark.anyio

HAPPY = flat(130)
FIGURE = {"accept": "image/png"}


def picture_in(url: str) -> Image.Image:
    kind, _, content = url.partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(BytesIO(b64decode(content, validate=True))) as image:
        image.load()
        assert image.format == "PNG"
        return image


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], bytes]:
    """Have the detector find so many faces, each smaller than the one before."""

    def find(count: int) -> bytes:
        side = np.arange(count, 0, -1, dtype=np.float32) + 20
        left = np.arange(count, dtype=np.float32) * 20
        points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])  # upright
        places = left[:, None, None] + side[:, None, None] * points
        boxes = [
            left,
            left,
            left + side,
            left + side,
            np.full(count, 0.9),
            *places.reshape(count, 10).T,
        ]
        found = Detection(np.column_stack(boxes).astype(np.float32))
        monkeypatch.setattr(Detector, "detect", lambda *_: found)
        monkeypatch.setattr("service.app.open_detector", lambda _: Detector(None))  # type: ignore[arg-type]
        return encoded(ramp(500, 500), "PNG")

    return find


# Answers.


async def test_json_is_as_documented() -> None:
    async with serving() as (client, app):
        response = await client.post("/explain", files=form(encoded(ramp(90, 80), "PNG")))
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json"
        body = response.json()
        assert sample(app, "fer_stage_seconds_count", stage="draw") == 1
        emotion = body["faces"][0]["emotion"]
        assert sample(app, "fer_faces_total", emotion=emotion) == 1
        labels = {"route": "/explain", "kind": "prediction", "method": "POST", "status": "200"}
        assert sample(app, "fer_requests_total", **labels) == 1
    assert Explanation.model_validate(body).model_dump() == body
    (face,) = body["faces"]
    assert face["straightening"] == {"angle_deg": 0, "scale": 1, "shift_x": 0, "shift_y": 0}
    sizes = [picture_in(face[name]).size for name in ("straightened", "attention", "evidence")]
    assert sizes == [(224, 199)] * 3
    assert picture_in(body["overlay"]).size == (512, 455)
    timing = body["timing"]
    assert timing["decode_ms"] + timing["inference_ms"] + timing["draw_ms"] > 0
    assert timing["draw_ms"] <= timing["total_ms"]


async def test_it_is_what_predict_answers_and_more() -> None:
    async with serving() as (client, _):
        predicted = (await client.post("/predict", files=form(HAPPY))).json()
        explained = (await client.post("/explain", files=form(HAPPY))).json()
    for key in ("image", "model"):
        assert explained[key] == predicted[key]
    more = {"straightening", "straightened", "attention", "evidence"}
    (face,) = explained["faces"]
    assert face.keys() == predicted["faces"][0].keys() | more
    assert {k: v for k, v in face.items() if k not in more} == predicted["faces"][0]


async def test_the_evidence_is_shown_where_it_is() -> None:
    """The fake engine's evidence is in the upper left corner."""
    async with serving() as (client, _):
        body = (await client.post("/explain", files=form(HAPPY))).json()
    for url in (body["faces"][0]["evidence"], body["overlay"]):
        pixels = np.asarray(picture_in(url), int)
        colour = pixels.max(axis=2) - pixels.min(axis=2)
        third = len(pixels) // 3
        assert colour[:third, :third].max() > 60
        assert colour[third:, third:].max() < 8  # the last of a spline's ripples


async def test_a_figure_where_a_png_is_preferred() -> None:
    async with serving() as (client, _):
        response = await client.post("/explain", files=form(HAPPY), headers=FIGURE)
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    with Image.open(BytesIO(response.content)) as figure:
        assert (figure.format, figure.size, figure.mode) == ("PNG", (1370, 376), "RGB")


@pytest.mark.parametrize(
    ("accept", "png"),
    [
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("image/png", True),
        ("IMAGE/PNG", True),
        ("image/*", True),
        ("text/html", False),
        ("application/json, image/png", False),
        ("application/json;q=0.5, image/png", True),
        ("image/png;q=0.5, application/json", False),
        ("image/png, */*;q=0.8", True),
        ("image/avif,image/webp,image/*,*/*;q=0.8", True),
        ("image/*, image/png;q=0", False),
        ("image/png;q=high", False),
        ("image/png;level=1;q=0.2", True),
        (";;,,q=1,/", False),
    ],
)
def test_accept(accept: str, png: bool) -> None:
    assert prefers_png(accept) is png


async def test_the_largest_faces_are_explained(crowd: Callable[[int], bytes]) -> None:
    engine = FakeEngine()
    async with serving(engine, max_batch=32, detector=detector_path()) as (client, _):
        picture = crowd(20)
        for query, count in (("max_faces=2", 2), ("max_faces=256", MAX_FACES)):
            url = f"/explain?detect=always&{query}"
            body = (await client.post(url, files=form(picture))).json()
            assert len(body["faces"]) == count
            widths = [face["box"]["width"] for face in body["faces"]]
            assert widths == sorted(widths, reverse=True)
            figure = await client.post(url, files=form(picture), headers=FIGURE)
            with Image.open(BytesIO(figure.content)) as image:
                assert image.height == 92 + 284 * count
    assert engine.explained == [2, 2, 16, 16]


async def test_no_face_is_no_error(crowd: Callable[[int], bytes]) -> None:
    engine = FakeEngine()
    async with serving(engine, detector=detector_path()) as (client, _):
        picture = crowd(0)
        body = (await client.post("/explain", files=form(picture))).json()
        assert body["faces"] == []
        assert np.ptp(np.asarray(picture_in(body["overlay"])), axis=2).max() == 0
        figure = await client.post("/explain", files=form(picture), headers=FIGURE)
        assert figure.headers["content-type"] == "image/png"
    assert engine.explained == []


@pytest.mark.parametrize("orientation", [1, 6])
async def test_large_pictures_are_drawn_smaller_and_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = encoded(ramp(3000, 1500), "JPEG", exif=exif)
    async with serving(detector=detector_path()) as (client, _):
        answer = await client.post("/explain?detect=never", files=form(picture))
    size = picture_in(answer.json()["overlay"]).size
    assert size == ((1024, 512) if orientation == 1 else (512, 1024))


# The real network.


@pytest.fixture(scope="module")
def shipped() -> TorchEngine:
    return TorchEngine(load_checkpoint(SHIPPED["fer2013"]), "cpu", max_batch=4, threads=1)


async def test_explaining_changes_no_probability(shipped: TorchEngine) -> None:
    portrait = Image.fromarray(skimage.data.astronaut()).resize((1200, 1200))
    pictures = [
        encoded(portrait.crop(crop), "JPEG", quality=90)
        for crop in ((380, 110, 680, 410), (300, 0, 900, 600), (0, 0, 1200, 1200))
    ]

    async def faces_of(client: httpx.AsyncClient, path: str, picture: bytes) -> Any:
        answer = await client.post(f"{path}?detect=never", files=form(picture))
        names = ("box", "detection", "emotion", "confidence", "probabilities")
        return [{name: face[name] for name in names} for face in answer.json()["faces"]]

    async with serving(shipped, detector=detector_path()) as (client, _):  # type: ignore[arg-type]
        for picture in pictures:  # one after the other: in the same batches
            predicted = await faces_of(client, "/predict", picture)
            assert await faces_of(client, "/explain", picture) == predicted


# ErrorMiddleware.


@pytest.mark.parametrize("accept", ["application/json", "image/png"])
async def test_what_is_no_picture_is_a_problem(accept: str) -> None:
    async with serving() as (client, app):
        for content, code in ((b"no picture", "bad_image"), (HAPPY[:80], "bad_image")):
            headers = {"accept": accept}
            response = await client.post("/explain", files=form(content), headers=headers)
            assert_problem(response, 400, code)
        response = await client.post("/explain", content=b"")
        assert_problem(response, 400, "no_image")
        assert sample(app, "fer_stage_seconds_count", stage="draw") == 0


async def test_a_query_that_cannot_be_is_a_problem() -> None:
    async with serving() as (client, _):
        response = await client.post("/explain?max_faces=0", files=form(HAPPY))
        assert_problem(response, 400, "bad_request")


async def test_a_face_that_the_network_fails_on_is_a_problem() -> None:
    class Speechless(FakeEngine):
        def explain(self, faces: np.ndarray, emotions: np.ndarray) -> Any:
            raise RuntimeError("a secret of /the/engine")

    for engine in (BrokenEngine(), Speechless()):
        async with serving(engine) as (client, _):
            response = await client.post("/explain", files=form(flat(1)))
            problem = assert_problem(response, 500, "inference_failed")
            assert "secret" not in json.dumps(problem)


async def test_a_full_queue_refuses() -> None:
    engine = GatedEngine()
    async with serving(engine, queue_size=2, max_batch=1, max_images=1) as (client, app):
        tasks = [asyncio.create_task(client.post("/explain", files=form(HAPPY)))]
        await asyncio.to_thread(engine.entered.wait)
        tasks += [asyncio.create_task(client.post("/explain", files=form(HAPPY))) for _ in "ab"]
        await until(lambda: sample(app, "fer_queue_faces") >= 2)
        assert_problem(await client.post("/explain", files=form(HAPPY)), 503, "queue_full")
        engine.gate.set()
        assert [(await task).status_code for task in tasks] == [200] * 3


async def test_a_client_that_leaves_is_dropped() -> None:
    engine = GatedEngine()
    async with serving(engine) as (client, app):
        first = asyncio.create_task(client.post("/predict", files=form(HAPPY)))
        await asyncio.to_thread(engine.entered.wait)
        leaver = Exchange(PNG, "/explain")
        leaver.push(HAPPY)
        leaving = asyncio.create_task(leaver.run(app))
        await until(lambda: sample(app, "fer_stage_seconds_count", stage="decode") >= 2)
        leaver.leave()
        await leaving
        assert leaver.sent == []
        engine.gate.set()
        assert (await first).status_code == 200
        labels = {"route": "/explain", "kind": "prediction", "method": "POST", "status": "499"}
        assert sample(app, "fer_requests_total", **labels) == 1
        assert app.state.service.memory.held_bytes == 0
    assert engine.explained == []


async def test_the_event_loop_turns_while_it_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = GatedEngine()
    draw, gate, entered = Drawing.overlay, engine.gate, engine.entered
    drawing = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(self: Drawing) -> bytes:
        loop.call_soon_threadsafe(drawing.set)
        gate.wait()
        return draw(self)

    monkeypatch.setattr(Drawing, "overlay", slow)
    async with serving(FakeEngine(), decode_threads=1) as (client, _):
        waiting = asyncio.create_task(client.post("/explain", files=form(HAPPY)))
        await drawing.wait()
        assert (await client.get("/health/live")).status_code == 200
        assert not waiting.done()
        gate.set()
        assert (await waiting).status_code == 200
    assert not entered.is_set()


async def test_the_document_has_both_kinds_of_answer() -> None:
    async with serving() as (client, _):
        document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/explain"]["post"]
    assert operation["requestBody"] == document["paths"]["/predict"]["post"]["requestBody"]
    answer = operation["responses"]["200"]["content"]
    assert answer["application/json"]["schema"] == {"$ref": "#/components/schemas/Explanation"}
    assert answer["image/png"]["schema"] == {"type": "string", "format": "binary"}
    schema = document["components"]["schemas"]["Explanation"]
    assert schema["properties"]["faces"]["maxItems"] == MAX_FACES
    Explanation.model_validate(schema["example"])
    assert {"400", "413", "415", "500", "503", "504"} <= operation["responses"].keys()
