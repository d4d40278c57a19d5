"""Tests of `service.http.v2.requests`: what a body asks, and what is refused before any work."""

import base64
import json
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from service.errors import BadRequest, ImageTooLarge, NoImage, RequestTooLarge, TooManyImages
from service.http.v2.requests import (
    MAX_JSON_BYTES,
    OUTPUTS,
    InferLimits,
    InferRequest,
    RequestedOutput,
    find_json,
    read_request,
)
from service.pictures.search import MAX_FACES, FaceSearch
from tests.service.http.v2.bodies import binary, elements, faces_json, header, images
from training.model.manifest import InputSpec

LIMITS = InferLimits(max_faces=4, max_images=3, max_image_bytes=100, spec=InputSpec())
FACE = bytes(range(256)) * 9  # 48 x 48


def read(body: bytes | dict[str, Any]) -> InferRequest:
    if isinstance(body, dict):
        return read_request(bytearray(json.dumps(body).encode()), None, LIMITS)
    return read_request(bytearray(body), find_json(header(body), len(body))[0], LIMITS)


# Faces.


def test_faces_as_binary_data() -> None:
    faces = read(binary("faces", "UINT8", [2, 48, 48], FACE + FACE[::-1])).faces
    assert faces is not None
    assert faces.shape == (2, 48, 48)
    assert faces.dtype == np.uint8
    assert faces.tobytes() == FACE + FACE[::-1]


def nested(data: list[int]) -> list[Any]:
    return np.array(data).reshape(-1, 48, 48).tolist()


@pytest.mark.parametrize("shape", [list, nested])
def test_faces_as_json_flat_or_nested(shape: Callable[[list[int]], list[Any]]) -> None:
    request = faces_json(7, 200)
    faces = read(faces_json(7, 200, data=shape(request["inputs"][0]["data"]))).faces
    assert faces is not None
    assert (faces[0] == 7).all()
    assert (faces[1] == 200).all()


def test_the_size_of_faces_is_the_checkpoints() -> None:
    limits = InferLimits(4, 3, 100, InputSpec(height=16, width=20))
    body = binary("faces", "UINT8", [1, 16, 20], bytes(320))
    json_bytes, _ = find_json(header(body), len(body))
    faces = read_request(bytearray(body), json_bytes, limits).faces
    assert faces is not None
    assert faces.shape == (1, 16, 20)
    with pytest.raises(BadRequest, match=r"UINT8 of shape \[n, 16, 20\]"):
        read_request(bytearray(json.dumps(faces_json(7)).encode()), None, limits)


@pytest.mark.parametrize(
    "data",
    [
        [256] * 2304,
        [-1] * 2304,
        [0.5] * 2304,
        ["a"] * 2304,
        [None] * 2304,
        [10**30] * 2304,
        [[[0] * 2303, 10**9]],  # `bytes` would make a gigabyte of it
        [[0] * 48, 48],
        [{}] * 2304,
        "0" * 2304,
    ],
    ids=str,
)
def test_values_that_are_no_grey_levels(data: Any) -> None:
    tracemalloc.start()
    with pytest.raises(BadRequest):
        read(faces_json(0, data=data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("shape", [[1, 48], [1, 48, 47], [1, 1, 48, 48], [2304], []])
def test_faces_of_another_shape(shape: list[int]) -> None:
    with pytest.raises(BadRequest, match=r"'faces' is UINT8 of shape \[n, 48, 48\]"):
        read(faces_json(0, shape=shape))


def test_faces_of_another_type() -> None:
    with pytest.raises(BadRequest, match="'faces' is UINT8"):
        read(faces_json(0, datatype="FP32"))


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_faces_as_the_shape_says(count: int) -> None:
    with pytest.raises(BadRequest, match="not as many as its shape says"):
        read(binary("faces", "UINT8", [count, 48, 48], FACE * 2))


def test_the_number_of_faces_is_bounded() -> None:
    most = read(binary("faces", "UINT8", [4, 48, 48], FACE * 4)).faces
    assert most is not None
    assert len(most) == 4
    with pytest.raises(TooManyImages, match="At most 4"):
        read(binary("faces", "UINT8", [5, 48, 48], FACE * 5))
    with pytest.raises(NoImage):
        read(binary("faces", "UINT8", [0, 48, 48], b""))


# Pictures.


def test_pictures_as_binary_data() -> None:
    asked = read(images(b"one", b"", b"three"))
    assert asked.images == (b"one", b"", b"three")
    assert asked.faces is None


@pytest.mark.parametrize("parameters", [{}, {"content_type": "base64"}])
def test_pictures_as_base64(parameters: dict[str, str]) -> None:
    data = [base64.b64encode(picture).decode() for picture in (b"one", b"\xff\xd8")]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [2], "data": data}
    assert read({"inputs": [tensor | {"parameters": parameters}]}).images == (b"one", b"\xff\xd8")


@pytest.mark.parametrize("data", [["no base64!"], [1], [None], [["YQ=="]], ["\u00e9"], ["YQ"]])
def test_strings_that_are_not_base64(data: list[Any]) -> None:
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": data}
    with pytest.raises(BadRequest, match="base64"):
        read({"inputs": [tensor]})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01\x00\x00",
        struct.pack("<I", 5) + b"four",
        struct.pack("<I", 2**32 - 1),
        elements(b"one", b"two"),
        elements(b"one") + b"x",
    ],
)
def test_elements_that_the_shape_does_not_have(data: bytes) -> None:
    with pytest.raises(BadRequest, match="not as many as its shape says"):
        read(binary("image", "BYTES", [1], data))


def test_empty_elements_beyond_the_shape_cost_nothing() -> None:
    body = binary("image", "BYTES", [1], bytes(8 << 20))  # two million of them
    tracemalloc.start()
    with pytest.raises(BadRequest):
        read(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 28 << 20  # the body, decoded by this test


def test_pictures_are_bounded_in_number_and_size() -> None:
    with pytest.raises(TooManyImages, match="At most 3"):
        read(images(*[b"x"] * 4))
    with pytest.raises(NoImage):
        read(images())
    assert read(images(bytes(100))).images == (bytes(100),)
    with pytest.raises(ImageTooLarge, match="more than 100 bytes"):
        read(images(bytes(101)))


# The request around them.


def test_what_is_not_asked_for_is_everything_as_json() -> None:
    asked = read(faces_json(0))
    assert asked.wanted == tuple(RequestedOutput(name, binary=False) for name in OUTPUTS)
    assert asked.name == ""
    assert asked.search == FaceSearch()


def test_wishes_are_understood() -> None:
    outputs = [
        {"name": "emotion", "parameters": {"binary_data": False}},
        {"name": "probabilities", "parameters": {"classification": 3}},
    ]
    parameters: dict[str, Any] = {"binary_data_output": True, "priority": 3}
    parameters |= {"detect": "never", "max_faces": 2, "min_face": 0.05}
    asked = read(faces_json(0) | {"outputs": outputs, "parameters": parameters, "id": "a"})
    assert asked.wanted == (
        RequestedOutput("emotion", False),
        RequestedOutput("probabilities", True, best=3),
    )
    assert asked.name == "a"
    assert asked.search == FaceSearch("never", 2, 0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": []}, "one input"),
        ({"inputs": faces_json(0)["inputs"] * 2}, "one input"),
        ({"inputs": [faces_json(0)["inputs"][0] | {"name": "x"}]}, "no such input"),
        ({"inputs": 3}, "at 'inputs'"),
        ({"inputs": [3]}, "at 'inputs.0'"),
        ({"inputs": [{"name": "faces"}]}, "at 'inputs.0.shape'"),
        ({"inputs": [faces_json(0)["inputs"][0] | {"shape": [-1, 48, 48]}]}, "at 'inputs.0.shape"),
        ({"inputs": [faces_json(0)["inputs"][0] | {"data": None}]}, "either 'data' or"),
        ({"id": 3}, "at 'id'"),
        ({"outputs": [{"name": "x"}]}, "Ask for each of probabilities"),
        ({"outputs": [{"name": "box"}, {"name": "box"}]}, "once"),
        ({"outputs": [{"name": "box"}] * 9}, "at 'outputs'"),
        ({"inputs": [{}] * 9}, "at 'inputs"),
        ({"outputs": [{"name": "box", "parameters": {"classification": 1}}]}, "alone"),
        ({"outputs": [{"name": "box", "parameters": {"shared_memory_region": "a"}}]}, "memory"),
        ({"parameters": {"binary_data_output": 1}}, "at 'parameters.binary_data_output'"),
        ({"parameters": {"detect": "maybe"}}, "at 'parameters.detect'"),
        ({"parameters": {"min_face": 0.01}}, "at 'parameters.min_face'"),
        ({"parameters": {"max_faces": 0}}, "at 'parameters.max_faces'"),
        ({"parameters": {"max_faces": MAX_FACES + 1}}, "at 'parameters.max_faces'"),
        ({"parameters": {"max_faces": "2"}}, "at 'parameters.max_faces'"),
    ],
)
def test_malformed_requests(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        read(faces_json(0) | change)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff", b'{"id": "\\ud800"}', b"[" * 30_000, b"\x00"]
)
def test_bodies_that_are_no_request(body: bytes) -> None:
    with pytest.raises(BadRequest, match="Open Inference Protocol"):
        read_request(bytearray(body), None, LIMITS)


@pytest.mark.parametrize(
    ("place", "item"),
    [
        ('{"inputs":[%s]}', "0"),
        ('{"inputs":[],"outputs":[%s]}', "0"),
        ('{"inputs":[{"name":"faces","datatype":"UINT8","shape":[%s]}]}', '""'),
        ('{"inputs":[{"name":"faces","datatype":"UINT8","shape":[1,48,48],"data":[%s]}]}', "[]"),
        ('{"inputs":[{"name":"faces","datatype":"UINT8","shape":[1,48,48],"data":[%s]}]}', "999"),
        ('{"inputs":[{"name":"image","datatype":"BYTES","shape":[1],"data":[%s]}]}', '""'),
        ('{"x":[%s]}', "{}"),
    ],
)
def test_hostile_json_costs_little_memory(place: str, item: str) -> None:
    count = (MAX_JSON_BYTES - len(place)) // (len(item) + 1)
    body = bytearray((place % ",".join([item] * count)).encode())
    tracemalloc.start()
    with pytest.raises((BadRequest, RequestTooLarge)):
        read_request(body, None, LIMITS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20  # of the inputs' errors it were gigabytes, and 17 seconds


def test_nested_rows_of_the_most_faces_that_fit_are_read() -> None:
    limits = InferLimits(256, 1, 1, LIMITS.spec)
    rows = np.full((256, 48, 48), 7).tolist()
    body = bytearray(json.dumps(faces_json(*[7] * 256, data=rows)).encode())
    assert len(body) < MAX_JSON_BYTES
    faces = read_request(body, None, limits).faces
    assert faces is not None
    assert len(faces) == 256


def test_nothing_that_the_client_wrote_is_told() -> None:
    secret = {"inputs": [{"name": "faces", "datatype": ["secret"], "shape": [], "secret": 1}]}
    with pytest.raises(BadRequest) as caught:
        read(secret)
    assert "secret" not in caught.value.detail


@pytest.mark.parametrize("size", [2303, 2305, 0])
def test_binary_data_of_another_size_than_it_says(size: int) -> None:
    body = binary("faces", "UINT8", [1, 48, 48], FACE)
    changed = body.replace(b'"binary_data_size": 2304', f'"binary_data_size": {size}'.encode())
    with pytest.raises(BadRequest, match=f"binary_data_size says {size}"):
        read(changed)


def test_binary_data_without_the_header() -> None:
    body = binary("faces", "UINT8", [1, 48, 48], FACE)
    with pytest.raises(BadRequest):
        read_request(bytearray(body), None, LIMITS)
    with pytest.raises(BadRequest, match="ends before its JSON does"):
        read_request(bytearray(body), len(body) + 1, LIMITS)


# The header.


def test_without_the_header_all_is_json_and_short() -> None:
    assert find_json({}, 1 << 30) == (None, MAX_JSON_BYTES)
    assert find_json({}, 1000) == (None, 1000)


def test_with_the_header_the_rest_may_be_long() -> None:
    assert find_json({"inference-header-content-length": "7"}, 1 << 30) == (7, 1 << 30)


@pytest.mark.parametrize("said", ["0", "-1", "x", "", "1.5", "\u0663", " 7"])
def test_lengths_that_are_none(said: str) -> None:
    with pytest.raises(BadRequest, match="Inference-Header-Content-Length"):
        find_json({"inference-header-content-length": said}, 1000)


@pytest.mark.parametrize("said", [str(MAX_JSON_BYTES + 1), "9" * 5000])
def test_too_much_json(said: str) -> None:
    with pytest.raises(RequestTooLarge, match="send tensors as binary data"):
        find_json({"inference-header-content-length": said}, 1 << 30)
