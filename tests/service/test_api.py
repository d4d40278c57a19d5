"""Tests of the whole application in process: every route, every error, every bound."""

import asyncio
import base64
import json
import logging
import math
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

from service.config import detector_path
from service.http.schemas import BatchPrediction, Prediction, Problem
from service.http.v2.messages import MODEL
from service.pictures.finder import FaceFinder
from service.pictures.search import FaceSearch
from service.pipeline import Predictor
from service.queue.batcher import Batcher
from tests.service.made_pictures import encoded, flat, ramp
from tests.service.serving import BrokenEngine, Exchange, FakeEngine, GatedEngine, serving
from tests.waiting import until
from training.model.labels import FER2013_EMOTIONS

pytestmark = pytest.mark.anyio

HAPPY = flat(130)  # 130 // 37 == 3
TOO_MANY = "too_many_pixels"


def form(*images: bytes, field: str = "image") -> list[tuple[str, tuple[str, bytes, str]]]:
    return [(field, (f"{n}.png", image, "image/png")) for n, image in enumerate(images)]


def sample(app: FastAPI, metric: str, **labels: str) -> float:
    value = app.state.service.metrics.registry.get_sample_value(metric, labels)
    assert value is not None, (metric, labels)
    return float(value)


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    Problem.model_validate(body)
    assert (body["status"], body["code"]) == (status, code)
    assert ("retry-after" in response.headers) == (status == 503)
    return body


# Answers.


@pytest.mark.parametrize(
    "content_type",
    ["image/png", "application/octet-stream", "binary/octet-stream", "image/*", None],
)
async def test_a_picture_as_the_body(content_type: str | None) -> None:
    async with serving() as (client, _):
        headers = {"content-type": content_type} if content_type else {}
        response = await client.post("/predict", content=HAPPY, headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.json()["faces"][0]["emotion"] == "happiness"


async def test_a_picture_in_a_form_gets_the_documented_answer() -> None:
    picture = encoded(ramp(120, 80), "PNG")
    async with serving(detector=detector_path()) as (client, _):
        response = await client.post("/predict?detect=never", files=form(picture))
    body = response.json()
    answer = Prediction.model_validate(body)
    assert answer.model_dump() == body  # nothing is missing and nothing more
    (face,) = body["faces"]
    assert face["box"] == {"x": 0, "y": 0, "width": 120, "height": 80}
    assert face["detection"] is None
    assert body["image"] == {"width": 120, "height": 80}
    assert body["model"] == {"name": "fake", "version": "7", "prior": "training"}
    assert tuple(face["probabilities"]) == FER2013_EMOTIONS
    assert math.isclose(sum(face["probabilities"].values()), 1.0, abs_tol=1e-5)
    assert face["confidence"] == face["probabilities"][face["emotion"]] == 0.76
    timing = body["timing"]
    parts = timing["decode_ms"] + timing["queue_ms"] + timing["inference_ms"]
    assert 0 < parts <= timing["total_ms"] + 0.01


@pytest.mark.parametrize("level", [0, 40, 80, 120, 160, 200, 240])
async def test_each_emotion_keeps_its_place(level: int) -> None:
    async with serving() as (client, app):
        response = await client.post("/predict", files=form(flat(level)))
        emotion = FER2013_EMOTIONS[level // 37]
        assert response.json()["faces"][0]["emotion"] == emotion
        assert sample(app, "fer_faces_total", emotion=emotion) == 1
        assert sample(app, "fer_confidence_count", emotion=emotion) == 1


@pytest.mark.parametrize("path", ["/predict", "/explain"])
async def test_a_picture_as_text_in_json(path: str) -> None:
    text = base64.b64encode(HAPPY).decode()
    async with serving() as (client, _):
        response = await client.post(path, json={"image": f"data:image/png;base64,{text}"})
        wrong = await client.post(path, json={"image": "https://example.org/face.jpg"})
    assert response.json()["faces"][0]["emotion"] == "happiness"
    assert "not fetched" in assert_problem(wrong, 400, "bad_request")["detail"]


async def test_pictures_as_texts_in_json() -> None:
    texts = [base64.b64encode(picture).decode() for picture in (HAPPY, b"no picture")]
    async with serving(max_images=2) as (client, _):
        response = await client.post("/predict/batch", json={"images": texts})
        many = await client.post("/predict/batch", json={"images": [*texts, texts[0]]})
    first, second = response.json()["results"]
    assert (first["faces"][0]["emotion"], second["code"]) == ("happiness", "bad_image")
    assert_problem(many, 413, "too_many_images")


async def test_json_has_the_bounds_of_a_form() -> None:
    large = base64.b64encode(b"x" * 2000).decode()
    async with serving(max_image_bytes=1024, max_request_bytes=4096) as (client, app):
        assert_problem(await client.post("/predict", json={"image": large}), 413, "image_too_large")
        huge = await client.post("/predict", json={"image": large * 100})
        assert_problem(huge, 413, "image_too_large")
        several = await client.post("/predict/batch", json={"images": [large] * 3})
        assert_problem(several, 413, "request_too_large")
        assert app.state.service.memory.held_bytes == 0


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
async def test_the_copies_that_reading_json_makes_are_in_the_memory_of_uploads(path: str) -> None:
    text = base64.b64encode(b"x" * 3000).decode()
    bounds: dict[str, Any] = {
        "max_image_bytes": 4096,
        "max_request_bytes": 6000,
        "max_buffered_bytes": 8000,
    }
    async with serving(**bounds) as (client, app):
        body = {"image": text} if path == "/predict" else {"images": [text]}
        assert_problem(await client.post(path, json=body), 503, "queue_full")
        assert app.state.service.memory.held_bytes == 0


@pytest.mark.parametrize("path", ["/predict/", "/predict/batch/", "/explain/"])
async def test_a_slash_at_the_end_changes_nothing(path: str) -> None:
    async with serving() as (client, app):
        assert (await client.post(path, files=form(HAPPY))).status_code == 200
        labels = {"route": path[:-1], "kind": "prediction", "method": "POST", "status": "200"}
        assert sample(app, "fer_requests_total", **labels) == 1
        assert (await client.post(f"{path}/", files=form(HAPPY))).status_code == 404


async def test_other_fields_of_the_form_are_of_no_interest() -> None:
    async with serving() as (client, _):
        files = [("note", (None, b"x", "text/plain")), *form(HAPPY)]
        assert (await client.post("/predict", files=files)).status_code == 200


async def test_a_form_in_pieces_of_any_size() -> None:
    request = httpx.Request("POST", "http://test", files=form(HAPPY))
    body, headers = request.read(), dict(request.headers)
    async with serving() as (_, app):
        for size in (1, 7, 64, len(body)):
            exchange = Exchange(headers)
            for start in range(0, len(body), size):
                exchange.push(body[start : start + size], more=start + size < len(body))
            await exchange.run(app)
            assert exchange.status == 200, exchange.sent
            answer = json.loads(exchange.sent[1]["body"])
            assert answer["faces"][0]["emotion"] == "happiness"


async def test_a_batch_answers_each_in_order() -> None:
    levels = [130, 10, 240]
    async with serving() as (client, _):
        response = await client.post("/predict/batch", files=form(*map(flat, levels)))
    body = response.json()
    assert BatchPrediction.model_validate(body).model_dump() == body
    emotions = [result["faces"][0]["emotion"] for result in body["results"]]
    assert emotions == ["happiness", "anger", "neutral"]


async def test_broken_pictures_do_not_fail_their_neighbours() -> None:
    large = encoded(Image.effect_noise((64, 64), 90), "BMP")
    files = form(HAPPY, b"no picture", b"", large, encoded(Image.new("L", (99, 99)), "PNG"), HAPPY)
    async with serving(max_image_bytes=2000, max_image_pixels=9000) as (client, app):
        response = await client.post("/predict/batch", files=files)
        rejected = sample(app, "fer_rejections_total", reason="bad_image")
    results = response.json()["results"]
    BatchPrediction.model_validate(response.json())
    assert response.status_code == 200
    codes = [result.get("code") for result in results]
    assert codes == [None, "bad_image", "no_image", "image_too_large", "too_many_pixels", None]
    assert results[0]["faces"] == results[5]["faces"]
    assert rejected == 1


async def test_a_face_that_the_network_fails_on_fails_alone() -> None:
    async with serving(BrokenEngine()) as (client, _):
        response = await client.post("/predict/batch", files=form(HAPPY, flat(0), HAPPY))
        codes = [result.get("code") for result in response.json()["results"]]
        assert codes == [None, "inference_failed", None]
        body = assert_problem(
            await client.post("/predict", files=form(flat(0))), 500, "inference_failed"
        )
    assert "secret" not in json.dumps(body) + response.text


async def test_a_batch_that_fails_as_a_whole_is_the_requests_failure() -> None:
    async with serving(BrokenEngine()) as (client, _):
        response = await client.post("/predict/batch", files=form(flat(0), flat(1)))
        assert_problem(response, 500, "inference_failed")


# What is refused.


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
async def test_nothing_sent(path: str) -> None:
    async with serving() as (client, _):
        assert_problem(await client.post(path), 400, "no_image")
        assert_problem(await client.post(path, files=form(HAPPY, field="img")), 400, "no_image")


async def test_empty_pictures() -> None:
    async with serving() as (client, _):
        assert_problem(await client.post("/predict", files=form(b"")), 400, "no_image")
        headers = {"content-type": "image/png"}
        assert_problem(await client.post("/predict", headers=headers), 400, "no_image")


async def test_not_a_picture() -> None:
    async with serving() as (client, app):
        response = await client.post("/predict", files=form(b"my secret diary"))
        body = assert_problem(response, 400, "bad_image")
        assert "diary" not in body["detail"]
        assert_problem(await client.post("/predict", files=form(HAPPY[:60])), 400, "bad_image")
        assert sample(app, "fer_rejections_total", reason="bad_image") == 2
        video = b"\x00\x00\x00\x18ftypisom" + bytes(20)
        assert_problem(await client.post("/predict", files=form(video)), 415, "unsupported_type")


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "video/mp4"])
@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
async def test_types_that_are_not_pictures(path: str, content_type: str) -> None:
    async with serving() as (client, _):
        response = await client.post(path, content=b"{}", headers={"content-type": content_type})
        assert_problem(response, 415, "unsupported_type")
        assert response.headers["connection"] == "close"  # its body was not read


async def test_the_batch_takes_forms_alone_and_nobody_takes_compression() -> None:
    async with serving() as (client, _):
        headers = {"content-type": "image/png"}
        response = await client.post("/predict/batch", content=HAPPY, headers=headers)
        assert_problem(response, 415, "unsupported_type")
        headers["content-encoding"] = "gzip"
        response = await client.post("/predict", content=HAPPY, headers=headers)
        assert_problem(response, 415, "unsupported_type")


async def test_two_pictures_where_one_is_asked_for() -> None:
    async with serving() as (client, _):
        response = await client.post("/predict", files=form(HAPPY, HAPPY))
        assert "/predict/batch" in assert_problem(response, 413, "too_many_images")["detail"]


async def test_too_many_pictures_in_a_batch() -> None:
    async with serving(max_images=2) as (client, _):
        response = await client.post("/predict/batch", files=form(HAPPY, HAPPY))
        assert response.status_code == 200
        response = await client.post("/predict/batch", files=form(HAPPY, HAPPY, HAPPY))
        assert_problem(response, 413, "too_many_images")


PNG = {"content-type": "image/png"}
FORM = {"content-type": "multipart/form-data; boundary=b"}
PART = b'--b\r\ncontent-disposition: form-data; name="image"\r\n\r\n'


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize(
    "body",
    [
        b"no boundary at all",
        PART + HAPPY,
        PART + HAPPY + b"\r\n--b\r\n",
        b"--b\r\n" + b"x-y: z\r\n" * 17 + b"\r\n\r\n--b--\r\n",
        b"--b\r\nx: " + b"y" * 9000 + b"\r\n\r\n\r\n--b--\r\n",
        b"--b\r\n\r\n\r\n" * 20 + b"--b--\r\n",
        b"--b\r\n: \r\n",
    ],
    ids=["prose", "cut", "open", "headers", "header", "fields", "nameless"],
)
async def test_malformed_forms(path: str, body: bytes) -> None:
    async with serving() as (client, _):
        response = await client.post(path, content=body, headers=FORM)
        assert_problem(response, 400, "bad_request")


@pytest.mark.parametrize("boundary", ["", "; boundary=", f"; boundary={'b' * 71}", "; boundary=☃"])
async def test_forms_without_a_boundary(boundary: str) -> None:
    async with serving() as (client, _):
        headers = {"content-type": f"multipart/form-data{boundary}".encode()}
        response = await client.post("/predict", content=b"x", headers=headers)  # type: ignore[arg-type]
        assert_problem(response, 400, "bad_request")


async def test_too_many_bytes_are_refused_by_their_announcement() -> None:
    async with serving(max_image_bytes=2000) as (_, app):
        for headers in (PNG, FORM):
            exchange = Exchange(headers | {"content-length": "70000"})
            await exchange.run(app)  # nothing was sent, and nothing was waited for
            assert exchange.status == 413
            assert exchange.received == 0
            assert exchange.answered_headers["connection"] == "close"
        exchange = Exchange(PNG | {"content-length": "many"})
        await exchange.run(app)
        assert exchange.status == 400


@pytest.mark.parametrize("headers", [PNG, FORM], ids=["raw", "form"])
async def test_too_many_bytes_end_the_reading(headers: dict[str, str]) -> None:
    async with serving(max_image_bytes=2000) as (_, app):
        exchange = Exchange(headers | {"transfer-encoding": "chunked"})
        exchange.push(PART if headers is FORM else b"", more=True)
        for _ in range(5):
            exchange.push(bytes(1000), more=True)
        await exchange.run(app)
        assert exchange.status == 413
        assert exchange.received <= len(PART) + 3000
        assert json.loads(exchange.sent[1]["body"])["code"] == "image_too_large"
        assert exchange.answered_headers["connection"] == "close"
        assert app.state.service.memory.held_bytes == 0


async def test_a_batch_of_too_many_bytes_ends_the_reading() -> None:
    limits: dict[str, Any] = {"max_image_bytes": 2000, "max_request_bytes": 5000}
    async with serving(**limits) as (_, app):
        exchange = Exchange(FORM | {"transfer-encoding": "chunked"}, "/predict/batch")
        for _ in range(9):
            exchange.push(PART + bytes(900) + b"\r\n", more=True)
        await exchange.run(app)
        assert exchange.status == 413
        assert json.loads(exchange.sent[1]["body"])["code"] == "request_too_large"
        assert exchange.received < 7000


async def test_all_uploads_together_are_bounded() -> None:
    limits: dict[str, Any] = {
        "max_image_bytes": 2000,
        "max_request_bytes": 2000,
        "max_buffered_bytes": 3000,
    }
    async with serving(**limits) as (client, app):
        first = Exchange(PNG)
        first.push(bytes(1500), more=True)
        task = asyncio.create_task(first.run(app))
        await until(lambda: first.received)
        response = await client.post("/predict", content=bytes(1600), headers=PNG)
        assert_problem(response, 503, "queue_full")
        first.leave()
        await task
        assert app.state.service.memory.held_bytes == 0
        response = await client.post("/predict", content=bytes(1600), headers=PNG)
        assert_problem(response, 400, "bad_image")


async def test_too_many_pixels() -> None:
    async with serving(max_image_pixels=4000) as (client, _):
        response = await client.post("/predict", files=form(HAPPY))
        assert_problem(response, 413, "too_many_pixels")


async def test_a_picture_that_takes_more_memory_than_there_is_for_all() -> None:
    async with serving(max_decode_bytes=32 << 20) as (client, _):
        large = encoded(Image.new("RGB", (2600, 2400)), "PNG")
        body = assert_problem(await client.post("/predict", files=form(large)), 413, TOO_MANY)
        assert "MiB" in body["detail"]


async def test_a_batch_of_pictures_that_are_small_and_dear() -> None:
    dear = encoded(Image.new("RGBA", (4000, 2500)), "PNG")  # a third of a second each, it is said
    assert len(dear) < 60_000
    async with serving() as (client, _):
        response = await client.post("/predict/batch", files=form(*[dear] * 6, HAPPY))
    codes = [result.get("code") for result in response.json()["results"]]
    # Two together take no more than a request of so many bytes may.
    assert sorted(codes[:6], key=str) == [None] * 2 + [TOO_MANY] * 4
    assert codes[6] is None


async def test_want_of_memory_is_not_the_clients_fault(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    async with serving() as (client, app):
        monkeypatch.setattr(Image, "open", exhausted)
        response = await client.post("/predict", files=form(encoded(ramp(), "PNG")))
        assert_problem(response, 503, "out_of_memory")
        assert sample(app, "fer_rejections_total", reason="out_of_memory") == 1
    assert "no memory for a picture" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/predict", "POST"),
        ("DELETE", "/predict/batch", "POST"),
        ("POST", "/metrics", "GET"),
        ("PUT", "/health/ready", "GET"),
    ],
)
async def test_wrong_methods(method: str, path: str, allow: str) -> None:
    async with serving() as (client, _):
        response = await client.request(method, path)
        assert_problem(response, 405, "method_not_allowed")
        assert response.headers["allow"] == allow


@pytest.mark.parametrize(
    "path", ["/nothing", "/predict//", "/predict/batch/1", "/docs/x", "/%2e%2e/etc"]
)
async def test_unknown_paths(path: str) -> None:
    async with serving() as (client, app):
        assert_problem(await client.post(path), 404, "not_found")
        labels = {"route": "unmatched", "kind": "other", "method": "POST", "status": "404"}
        assert sample(app, "fer_requests_total", **labels) == 1


async def test_the_unexpected_is_logged_and_not_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        raise ZeroDivisionError("a secret of /the/code")

    monkeypatch.setattr(Predictor, "predict", fail)
    async with serving() as (client, app):
        response = await client.post("/predict", files=form(HAPPY))
        assert "secret" not in json.dumps(assert_problem(response, 500, "internal_error"))
        assert sample(app, "fer_rejections_total", reason="internal_error") == 1
        assert (await client.get("/health/live")).status_code == 200
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


# Time, load and clients that leave.


async def test_a_slow_upload_is_cut_off() -> None:
    async with serving(timeout_s=0.05) as (_, app):
        exchange = Exchange(PNG | {"content-length": str(len(HAPPY))})
        exchange.push(HAPPY[:10], more=True)
        await exchange.run(app)
        assert exchange.status == 408
        assert json.loads(exchange.sent[1]["body"])["code"] == "upload_timeout"
        assert exchange.answered_headers["connection"] == "close"


async def test_a_slow_answer_is_cut_off() -> None:
    engine = GatedEngine()
    async with serving(engine, timeout_s=0.05, drain_s=1.0) as (client, _):
        response = await client.post("/predict", files=form(HAPPY))
        assert_problem(response, 504, "deadline_exceeded")
        engine.gate.set()


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    engine = GatedEngine()
    async with serving(engine, queue_size=2, max_batch=1, max_images=1) as (client, app):
        tasks = [asyncio.create_task(client.post("/predict", files=form(HAPPY)))]
        await asyncio.to_thread(engine.entered.wait)
        tasks += [asyncio.create_task(client.post("/predict", files=form(HAPPY))) for _ in "ab"]
        await until(lambda: sample(app, "fer_queue_faces") >= 2)
        assert_problem(await client.post("/predict", files=form(HAPPY)), 503, "queue_full")
        engine.gate.set()
        assert [(await task).status_code for task in tasks] == [200] * 3


PATHS = ("/predict", "/predict/batch", "/explain", f"/v2/models/{MODEL}/infer")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("further", "connection"),
    [
        ({"content-length": "500000"}, None),
        ({"content-length": "50000000"}, "close"),
        ({"content-length": "500000", "expect": "100-continue"}, "close"),
        ({"transfer-encoding": "chunked"}, "close"),
    ],
)
async def test_who_would_be_refused_anyhow_is_refused_unread(
    path: str, further: dict[str, str], connection: str | None
) -> None:
    engine = GatedEngine()
    async with serving(engine, queue_size=1, max_batch=1, max_images=1) as (client, app):
        tasks = [asyncio.create_task(client.post("/predict", content=HAPPY))]
        await asyncio.to_thread(engine.entered.wait)
        tasks.append(asyncio.create_task(client.post("/predict", content=HAPPY)))
        await until(lambda: app.state.service.admission.working >= 2)
        exchange = Exchange(FORM | further, path)
        await exchange.run(app)  # nothing was sent, and nothing was waited for
        assert exchange.status == 503
        assert json.loads(exchange.sent[1]["body"])["code"] == "queue_full"
        assert int(exchange.answered_headers["retry-after"]) >= 1
        # The server skips what is left of a small body: a reset would hide the answer.
        assert exchange.answered_headers.get("connection") == connection
        engine.gate.set()
        assert [(await task).status_code for task in tasks] == [200] * 2


async def test_while_the_engine_hangs_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as (_, app):
        monkeypatch.setattr(type(app.state.service.batcher), "healthy", False)
        exchange = Exchange(PNG | {"content-length": "500"})
        await exchange.run(app)
        assert exchange.status == 503
        assert json.loads(exchange.sent[1]["body"])["code"] == "not_ready"


async def test_a_client_that_leaves_while_it_waits_is_dropped() -> None:
    engine = GatedEngine()
    async with serving(engine) as (client, app):
        first = asyncio.create_task(client.post("/predict", files=form(HAPPY)))
        await asyncio.to_thread(engine.entered.wait)
        leaver = Exchange(PNG)
        leaver.push(HAPPY)
        leaving = asyncio.create_task(leaver.run(app))
        # A decoded picture goes to the queue at once.
        await until(lambda: sample(app, "fer_stage_seconds_count", stage="decode") >= 2)
        leaver.leave()
        await leaving  # its handler ended, quietly, though the engine has not answered
        assert leaver.sent == []
        engine.gate.set()
        assert (await first).status_code == 200
        labels = {"route": "/predict", "kind": "prediction", "method": "POST", "status": "499"}
        assert sample(app, "fer_requests_total", **labels) == 1
    assert engine.batches == [1]
    assert sample(app, "fer_abandoned_faces_total") == 1


async def test_a_client_that_leaves_while_it_sends() -> None:
    async with serving() as (_, app):
        for headers in (PNG, FORM):
            exchange = Exchange(headers)
            exchange.push(PART, more=True)
            exchange.leave()
            await exchange.run(app)
            assert exchange.sent == []
        assert app.state.service.memory.held_bytes == 0


async def test_the_event_loop_turns_while_pictures_are_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = GatedEngine()
    find, gate, entered = FaceFinder.find, engine.gate, engine.entered

    def slow(self: FaceFinder, image: bytes, search: FaceSearch) -> Any:
        entered.set()
        gate.wait()
        return find(self, image, search)

    monkeypatch.setattr(FaceFinder, "find", slow)
    async with serving(engine, decode_threads=1) as (client, _):
        waiting = asyncio.create_task(client.post("/predict", files=form(HAPPY)))
        await asyncio.to_thread(entered.wait)
        assert (await client.get("/health/live")).status_code == 200
        assert not waiting.done()
        gate.set()
        assert (await waiting).status_code == 200


async def test_what_was_accepted_is_answered_before_the_end() -> None:
    engine = GatedEngine()
    async with serving(engine) as (client, app):
        accepted = asyncio.create_task(client.post("/predict", files=form(HAPPY)))
        await asyncio.to_thread(engine.entered.wait)
        draining = asyncio.create_task(app.state.service.batcher.drain(10.0))
        await asyncio.sleep(0)
        refused = await client.post("/predict", files=form(HAPPY))
        assert_problem(refused, 503, "shutting_down")
        engine.gate.set()
        await draining
        assert (await accepted).status_code == 200


# The operator's side.


async def test_health() -> None:
    engine = FakeEngine()
    async with serving(engine) as (client, app):
        assert engine.warmed
        response = await client.get("/health/ready")
        assert (response.status_code, response.json()) == (200, {"status": "ready"})
        assert (await client.get("/health/live")).json() == {"status": "live"}
        assert (await client.head("/health/ready")).status_code == 200
        assert sample(app, "fer_ready") == 1
        app.state.service.begin_drain()
        assert_problem(await client.get("/health/ready"), 503, "shutting_down")
        assert (await client.get("/health/live")).status_code == 200
        assert sample(app, "fer_ready") == 0


async def test_a_hanging_engine_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as (client, app):
        monkeypatch.setattr(Batcher, "healthy", property(lambda _: False))
        assert_problem(await client.get("/health/ready"), 503, "not_ready")
        await client.get("/metrics")
        assert sample(app, "fer_ready") == 0


async def test_before_the_start_nothing_is_ready() -> None:
    async with serving() as (client, app):
        app.state.service, service = None, app.state.service
        for response in (
            await client.get("/health/ready"),
            await client.get("/metrics"),
            await client.post("/predict", files=form(HAPPY)),
        ):
            assert_problem(response, 503, "not_ready")
        app.state.service = service


async def test_metrics_tell_what_happened() -> None:
    async with serving() as (client, app):
        for _ in range(3):
            await client.post("/predict", files=form(HAPPY))
        labels = {"route": "/predict", "kind": "prediction"}
        assert sample(app, "fer_requests_total", **labels, method="POST", status="200") == 3
        assert sample(app, "fer_request_seconds_count", **labels) == 3
        for stage in ("receive", "decode", "queue", "inference"):
            assert sample(app, "fer_stage_seconds_count", stage=stage) == 3
        assert sample(app, "fer_image_pixels_sum") == 3 * 64 * 64
        model = {"name": "fake", "version": "7", "device": "fake", "prior": "training"}
        assert sample(app, "fer_model_info", **model) == 1
        response = await client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
        labels_as_text = 'kind="prediction",method="POST",route="/predict",status="200"'
        assert f"fer_requests_total{{{labels_as_text}}} 3.0" in response.text
        accept = {"accept": "application/openmetrics-text; version=1.0.0"}
        response = await client.get("/metrics", headers=accept)
        assert response.headers["content-type"].startswith("application/openmetrics-text")
        assert response.text.endswith("# EOF\n")


async def test_labels_are_not_for_clients_to_choose() -> None:
    async with serving() as (client, app):
        await client.request("BREW", "/a/b/c?d=e")
        labels = {"route": "unmatched", "kind": "other", "method": "other", "status": "404"}
        assert sample(app, "fer_requests_total", **labels) == 1


async def test_the_document_describes_both_kinds_of_upload_and_every_problem() -> None:
    async with serving() as (client, _):
        document = (await client.get("/openapi.json")).json()
    one = document["paths"]["/predict"]["post"]
    assert {"multipart/form-data", "image/*"} <= one["requestBody"]["content"].keys()
    several = document["paths"]["/predict/batch"]["post"]["requestBody"]["content"]
    assert several["multipart/form-data"]["schema"]["properties"]["image"]["type"] == "array"
    assert {"200", "400", "413", "415", "503", "504"} <= one["responses"].keys()
    for status in ("400", "413", "415", "503", "504"):
        schema = one["responses"][status]["content"]["application/problem+json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Problem"}
    assert "422" not in one["responses"]
    schemas = document["components"]["schemas"]
    assert {"Prediction", "BatchPrediction", "Problem"} <= schemas.keys()
    Prediction.model_validate(schemas["Prediction"]["example"])
    BatchPrediction.model_validate(schemas["BatchPrediction"]["example"])
    Problem.model_validate(schemas["Problem"]["example"])
    assert {"/health/live", "/health/ready", "/metrics"} <= document["paths"].keys()
