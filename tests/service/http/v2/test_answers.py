"""Tests of `service.http.v2.answers`: the bytes of an answer."""

import json
import struct

import numpy as np
import pytest

from service.engine.prior import Priors
from service.http.v2.answers import Row, Rows, respond
from service.http.v2.messages import InferenceAnswer
from service.http.v2.requests import OUTPUTS, InferRequest, RequestedOutput
from service.pictures.search import FaceSearch
from tests.service.serving import MANIFEST

PRIOR = Priors(MANIFEST).default
ROWS = (
    Row(0, (1, 2, 3, 4), "happiness", (0.0, 0.1, 0.0, 0.6, 0.3, 0.0, 0.0)),
    Row(2, (5, 6, 7, 8), "anger", (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
)


def asked(*wanted: RequestedOutput, name: str = "") -> InferRequest:
    return InferRequest(name, None, (b"x",), FaceSearch(), wanted)


def test_all_as_json() -> None:
    response = respond(
        asked(*[RequestedOutput(n, False) for n in OUTPUTS], name="mine"),
        Rows(ROWS),
        MANIFEST,
        PRIOR,
    )
    assert response.headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in response.headers
    InferenceAnswer.model_validate_json(bytes(response.body))
    body = json.loads(bytes(response.body))
    assert (body["model_name"], body["model_version"], body["id"]) == ("attention-fer", "1", "mine")
    assert body["parameters"] == {
        "checkpoint": "fake", "checkpoint_version": "7", "prior": "training"
    }  # fmt: skip
    assert body["outputs"] == [
        {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": [2, 7],
            "data": [*ROWS[0].probabilities, *ROWS[1].probabilities],
        },
        {"name": "emotion", "datatype": "BYTES", "shape": [2], "data": ["happiness", "anger"]},
        {"name": "box", "datatype": "INT32", "shape": [2, 4], "data": [1, 2, 3, 4, 5, 6, 7, 8]},
        {"name": "image_index", "datatype": "INT32", "shape": [2], "data": [0, 2]},
    ]


def test_an_answer_about_pictures_says_whether_faces_are_missing() -> None:
    rows = Rows(ROWS, faces_found=9, truncated=True)
    response = respond(asked(RequestedOutput("box", False)), rows, MANIFEST, PRIOR)
    parameters = json.loads(bytes(response.body))["parameters"]
    assert (parameters["faces_found"], parameters["truncated"]) == (9, True)


def test_without_a_name_there_is_none() -> None:
    response = respond(asked(RequestedOutput("emotion", False)), Rows(ROWS), MANIFEST, PRIOR)
    assert "id" not in json.loads(bytes(response.body))


def test_binary_tensors_follow_in_the_order_asked_for() -> None:
    wanted = (
        RequestedOutput("emotion", True),
        RequestedOutput("box", False),
        RequestedOutput("probabilities", True),
    )
    response = respond(asked(*wanted), Rows(ROWS), MANIFEST, PRIOR)
    assert response.headers["content-type"] == "application/octet-stream"
    end = int(response.headers["inference-header-content-length"])
    outputs = json.loads(bytes(response.body)[:end])["outputs"]
    assert [output["name"] for output in outputs] == ["emotion", "box", "probabilities"]
    assert "data" in outputs[1]
    sizes = [outputs[place]["parameters"]["binary_data_size"] for place in (0, 2)]
    tail = bytes(response.body)[end:]
    assert len(tail) == sum(sizes)
    assert tail[: sizes[0]] == struct.pack("<I", 9) + b"happiness" + struct.pack("<I", 5) + b"anger"
    probabilities = np.frombuffer(tail[sizes[0] :], "<f4").reshape(2, 7)
    assert np.allclose(probabilities, [row.probabilities for row in ROWS])


@pytest.mark.parametrize("binary", [True, False])
def test_no_face_is_an_answer(binary: bool) -> None:
    response = respond(
        asked(*[RequestedOutput(n, binary) for n in OUTPUTS]), Rows(()), MANIFEST, PRIOR
    )
    end = int(response.headers.get("inference-header-content-length", len(response.body)))
    assert end == len(response.body)
    outputs = json.loads(bytes(response.body))["outputs"]
    assert [output["shape"] for output in outputs] == [[0, 7], [0], [0, 4], [0]]


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (2, 2), (100, 7)])
def test_the_best_classes_as_text(count: int, expected: int) -> None:
    response = respond(
        asked(RequestedOutput("probabilities", False, count)), Rows(ROWS), MANIFEST, PRIOR
    )
    (output,) = json.loads(bytes(response.body))["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, expected])
    best = ["0.600000:3:happiness", "0.300000:4:sadness"][:expected]
    assert output["data"][: len(best)] == best
    assert output["data"][expected] == "1.000000:0:anger"
