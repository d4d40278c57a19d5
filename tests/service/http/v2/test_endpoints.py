"""Tests of the protocol's paths in process: its answers, its errors, and the bounds of the rest."""

import asyncio
import base64
import gzip
import json
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from service.http.v2 import messages
from service.http.v2.endpoints import MAX_FACES
from tests.service.http.v2.bodies import INFER, binary, faces_json, header, images
from tests.service.made_pictures import flat
from tests.service.serving import BrokenEngine, Exchange, FakeEngine, GatedEngine, serving
from tests.waiting import until
from training.model.labels import FER2013_EMOTIONS

pytestmark = pytest.mark.anyio

HAPPY = flat(130)
FACE = bytes([130]) * 2304


def sample(app: FastAPI, metric: str, **labels: str) -> float:
    value = app.state.service.metrics.registry.get_sample_value(metric, labels)
    assert value is not None, (metric, labels)
    return float(value)


def assert_error(response: httpx.Response, status: int, code: str) -> str:
    """Both shapes of an error: the API's own, and the protocol's."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = messages.InferenceProblem.model_validate(response.json())
    assert (problem.status, problem.code) == (status, code)
    assert problem.error == problem.detail
    return problem.error


async def post(client: httpx.AsyncClient, body: bytes, **headers: str) -> httpx.Response:
    return await client.post(INFER, content=body, headers=header(body) | headers)


def tensor(response: httpx.Response, name: str) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    (found,) = [output for output in response.json()["outputs"] if output["name"] == name]
    return found


# What it says of itself.


async def test_the_server_and_its_health() -> None:
    async with serving() as (client, app):
        body = (await client.get("/v2")).json()
        assert body["name"] == "attention-fer"
        assert {"binary_tensor_data", "classification"} <= set(body["extensions"])
        assert (await client.get("/v2/health/live")).json() == {"live": True}
        assert (await client.get("/v2/health/ready")).json() == {"ready": True}
        app.state.service.begin_drain()
        assert (await client.get("/v2/health/live")).status_code == 200
        for path in ("/v2/health/ready", "/v2/models/attention-fer/ready"):
            assert_error(await client.get(path), 503, "shutting_down")


@pytest.mark.parametrize("path", ["", "/versions/1"])
async def test_the_model_is_the_checkpoints(path: str) -> None:
    async with serving(queue_size=100, max_batch=8) as (client, _):
        model = f"/v2/models/attention-fer{path}"
        body = (await client.get(model)).json()
        ready = (await client.get(f"{model}/ready")).json()
        answer = await client.post(f"{model}/infer", json=faces_json(130))
    assert ready == {"name": "attention-fer", "ready": True}
    messages.ModelMetadata.model_validate(body)
    assert (body["name"], body["versions"]) == ("attention-fer", ["1"])
    assert body["inputs"] == [
        {"name": "faces", "datatype": "UINT8", "shape": [-1, 48, 48]},
        {"name": "image", "datatype": "BYTES", "shape": [-1]},
    ]
    assert body["parameters"] == {
        "checkpoint": "fake",
        "checkpoint_version": "7",
        "prior": "training",
        "emotions": ",".join(FER2013_EMOTIONS),
        "max_faces": 100,
        "max_images": 32,
    }
    # What it says of its outputs is what it answers.
    said = {output["name"]: output for output in body["outputs"]}
    for output in answer.json()["outputs"]:
        assert output["datatype"] == said[output["name"]]["datatype"]
        assert output["shape"][1:] == said[output["name"]]["shape"][1:]
    assert len(answer.json()["outputs"]) == len(said) == 4


@pytest.mark.parametrize(
    "path", ["/v2//", "/v2/models", "/v2/models/other", "/v2/models/attention-fer/versions/2/infer"]
)
async def test_unknown_models_are_told_so(path: str) -> None:
    async with serving() as (client, _):
        assert "attention-fer" in assert_error(await client.get(path), 404, "not_found")


async def test_wrong_methods() -> None:
    async with serving() as (client, _):
        response = await client.get(INFER)
        assert_error(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "POST"


async def test_before_the_start_nothing_is_ready() -> None:
    async with serving() as (client, app):
        app.state.service = None
        assert_error(await client.post(INFER, json=faces_json(0)), 503, "not_ready")
        assert_error(await client.get("/v2"), 503, "not_ready")
        assert (await client.get("/v2/health/live")).status_code == 200


# Answers.


async def test_a_row_a_face_of_pixels() -> None:
    async with serving() as (client, app):
        response = await client.post(INFER, json=faces_json(10, 130, 250))
        assert sample(app, "fer_faces_total", emotion="happiness") == 1
    messages.InferenceAnswer.model_validate_json(response.content)
    assert tensor(response, "emotion")["data"] == ["anger", "happiness", "neutral"]
    assert tensor(response, "image_index")["data"] == [0, 1, 2]
    assert tensor(response, "box")["data"] == [0, 0, 48, 48] * 3
    probabilities = np.reshape(tensor(response, "probabilities")["data"], (3, 7))
    assert probabilities.argmax(1).tolist() == [0, 3, 6]


async def test_pictures_get_the_answers_of_predict() -> None:
    pictures = [flat(10), flat(130, 100), flat(250)]
    async with serving() as (client, _):
        response = await post(client, images(*pictures, id="three"))
        alone = [(await client.post("/predict", content=p)).json()["faces"] for p in pictures]
    assert response.json()["id"] == "three"
    faces = [face for faces in alone for face in faces]
    assert tensor(response, "emotion")["data"] == [face["emotion"] for face in faces]
    values = [value for face in faces for value in face["probabilities"].values()]
    assert tensor(response, "probabilities")["data"] == values
    boxes = [side for face in faces for side in face["box"].values()]
    assert tensor(response, "box")["data"] == boxes
    assert tensor(response, "image_index")["data"] == [0, 1, 2]


async def test_a_picture_in_json() -> None:
    data = [base64.b64encode(HAPPY).decode()]
    picture = {"name": "image", "datatype": "BYTES", "shape": [1], "data": data}
    async with serving() as (client, _):
        response = await client.post(INFER, json={"inputs": [picture]})
    assert tensor(response, "emotion")["data"] == ["happiness"]


async def test_the_faces_of_one_request_share_a_batch() -> None:
    engine = GatedEngine()
    async with serving(engine) as (client, app):
        first = asyncio.create_task(client.post("/predict", content=HAPPY))
        await asyncio.to_thread(engine.entered.wait)
        second = asyncio.create_task(post(client, images(*[HAPPY] * 5)))
        third = asyncio.create_task(client.post(INFER, json=faces_json(1, 2)))
        await until(lambda: sample(app, "fer_queue_faces") >= 7)
        engine.gate.set()
        assert [r.status_code for r in (await first, await second, await third)] == [200] * 3
    assert engine.batches == [1, 7]


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_requests(encoding: str) -> None:
    body = binary("faces", "UINT8", [2, 48, 48], FACE * 2)
    small = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    headers = header(body) | {"content-encoding": encoding}
    async with serving() as (client, app):
        response = await client.post(INFER, content=small, headers=headers)
        assert app.state.service.memory.held_bytes == 0
    assert tensor(response, "emotion")["data"] == ["happiness"] * 2


# Errors.


async def test_a_broken_picture_fails_the_request_and_is_named() -> None:
    async with serving() as (client, app):
        response = await post(client, images(HAPPY, b"no picture", HAPPY))
        assert "element 1" in assert_error(response, 400, "bad_image")
        assert_error(await post(client, images(HAPPY, b"")), 400, "no_image")
        assert sample(app, "fer_rejections_total", reason="bad_image") == 1


async def test_a_face_that_the_network_fails_on() -> None:
    async with serving(BrokenEngine()) as (client, _):
        response = await client.post(INFER, json=faces_json(130, 0))
        assert_error(response, 500, "inference_failed")
        assert_error(await post(client, images(HAPPY, flat(0))), 500, "inference_failed")


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b"\xff\xd8\xff"])
async def test_bodies_that_are_no_request(body: bytes) -> None:
    async with serving() as (client, _):
        assert_error(await client.post(INFER, content=body), 400, "bad_request")


async def test_too_many_faces_and_pictures() -> None:
    async with serving(max_images=2) as (client, _):
        body = binary("faces", "UINT8", [MAX_FACES, 48, 48], FACE * MAX_FACES)
        assert (await post(client, body)).status_code == 200
        body = binary("faces", "UINT8", [MAX_FACES + 1, 48, 48], FACE * (MAX_FACES + 1))
        assert_error(await post(client, body), 413, "too_many_images")
        assert_error(await post(client, images(*[HAPPY] * 3)), 413, "too_many_images")


async def test_bodies_are_bounded_before_and_after_they_are_inflated() -> None:
    limits: dict[str, Any] = {"max_image_bytes": 3000, "max_request_bytes": 4000}
    async with serving(**limits) as (client, app):
        large = binary("faces", "UINT8", [2, 48, 48], FACE * 2)
        assert_error(await post(client, large), 413, "request_too_large")
        headers = header(large) | {"content-encoding": "gzip"}
        response = await client.post(INFER, content=gzip.compress(large), headers=headers)
        assert_error(response, 413, "request_too_large")
        assert_error(await post(client, images(bytes(3001))), 413, "image_too_large")
        assert_error(await client.post(INFER, json=faces_json(0)), 413, "request_too_large")
        assert app.state.service.memory.held_bytes == 0


async def test_the_first_byte_too_many_ends_the_reading() -> None:
    async with serving(max_image_bytes=3000, max_request_bytes=4000) as (_, app):
        exchange = Exchange(
            {"inference-header-content-length": "100", "transfer-encoding": "chunked"}, INFER
        )
        for _ in range(20):
            exchange.push(bytes(1000), more=True)
        await exchange.run(app)
        assert exchange.status == 413
        assert exchange.received == 5000
        assert exchange.answered_headers["connection"] == "close"


async def test_a_full_queue_and_a_late_answer() -> None:
    engine = GatedEngine()
    async with serving(engine, max_batch=1, queue_size=2, max_images=2, timeout_s=0.3) as (
        client,
        app,
    ):
        first = asyncio.create_task(client.post(INFER, json=faces_json(130)))
        await asyncio.to_thread(engine.entered.wait)
        second = asyncio.create_task(client.post(INFER, json=faces_json(130, 10)))
        await until(lambda: sample(app, "fer_queue_faces") >= 2)
        response = await client.post(INFER, json=faces_json(130))
        assert_error(response, 503, "queue_full")
        assert int(response.headers["retry-after"]) >= 1
        for late in (first, second):
            assert_error(await late, 504, "deadline_exceeded")
        engine.gate.set()


@pytest.mark.parametrize(
    "body", [images(HAPPY, HAPPY), binary("faces", "UINT8", [2, 48, 48], FACE * 2)]
)
async def test_a_client_that_leaves_is_dropped(body: bytes) -> None:
    engine = GatedEngine()
    async with serving(engine) as (client, app):
        first = asyncio.create_task(client.post("/predict", content=HAPPY))
        await asyncio.to_thread(engine.entered.wait)
        leaver = Exchange(header(body), INFER)
        leaver.push(body)
        leaving = asyncio.create_task(leaver.run(app))
        await until(lambda: sample(app, "fer_queue_faces") >= 2)
        leaver.leave()
        await leaving
        assert leaver.sent == []
        engine.gate.set()
        assert (await first).status_code == 200
        assert sample(app, "fer_abandoned_faces_total") == 2
    assert engine.batches == [1]


async def test_keys_are_asked_for_and_refusals_have_the_protocols_shape() -> None:
    key = "0123456789abcdef"
    async with serving(api_keys=(key,)) as (client, _):
        assert_error(await client.post(INFER, json=faces_json(0)), 401, "unauthorized")
        headers = {"authorization": f"Bearer {key}"}
        response = await client.post(INFER, json=faces_json(0), headers=headers)
        assert response.status_code == 200
        document = (await client.get("/openapi.json", headers=headers)).json()
    problem = document["paths"][INFER]["post"]["responses"]["401"]
    assert "error" in problem["content"]["application/problem+json"]["schema"]["properties"]


async def test_other_paths_have_the_usual_problems() -> None:
    async with serving() as (client, _):
        for path in ("/v2x", "/v3", "/predict"):
            assert "error" not in (await client.get(path)).json()


# What surrounds it.


async def test_requests_are_counted_by_fixed_routes() -> None:
    async with serving() as (client, app):
        await client.post(INFER, json=faces_json(0))
        await client.post("/v2/models/mine/infer", json=faces_json(0))
        answered = {"kind": "prediction", "method": "POST", "status": "200"}
        assert sample(app, "fer_requests_total", route=INFER, **answered) == 1
        unknown = {"kind": "other", "method": "POST", "status": "404"}
        assert sample(app, "fer_requests_total", route="unmatched", **unknown) == 1


async def test_the_document_has_no_reference_that_leads_nowhere() -> None:
    async with serving() as (client, _):
        document = (await client.get("/openapi.json")).json()
    operation = document["paths"][INFER]["post"]
    text = json.dumps(operation)
    assert "$defs" not in text
    inputs = operation["requestBody"]["content"]["application/json"]["schema"]["properties"][
        "inputs"
    ]
    assert set(inputs["items"]["properties"]) == {
        "name", "shape", "datatype", "parameters", "data"
    }  # fmt: skip
    assert "application/octet-stream" in operation["responses"]["200"]["content"]


async def test_engines_see_the_pixels_as_they_were_sent() -> None:
    seen = []

    class Watching(FakeEngine):
        def infer(self, faces: np.ndarray) -> np.ndarray:
            seen.append(faces.copy())
            return super().infer(faces)

    face = (bytes(range(256)) * 9)[:2304]
    async with serving(Watching()) as (client, _):
        await post(client, binary("faces", "UINT8", [1, 48, 48], face))
    assert seen[-1].tobytes() == face
