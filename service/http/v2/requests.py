"""Parses a request's body: faces or pictures, and the requested output tensors.

    {"inputs": [{"name": "faces", "parameters": {"binary_data_size": 2304}, ...}]} 2304 bytes
    Inference-Header-Content-Length ───────────────────────────────────────────▶│

All errors of the request are reported before any computation.
"""

import binascii
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from service.errors import (
    BadRequest,
    ImageTooLarge,
    NoImage,
    RequestTooLarge,
    ServiceError,
    TooManyImages,
)
from service.http.v2.messages import InferenceRequest, Input, Output
from service.pictures.search import FaceSearch
from training.model.manifest import InputSpec

OUTPUTS = ("probabilities", "emotion", "box", "image_index")
"""The output tensors, one row per face, in their default order."""
HEADER = "inference-header-content-length"
MAX_JSON_BYTES = 4 << 20
"""Most bytes of JSON: parsed, it takes many times the memory, and parsing holds the GIL."""
MAX_LISTS = 1 << 15
"""Most lists and objects in it, enough for the rows of all faces; a million would take seconds."""


@dataclass(frozen=True)
class InferLimits:
    """The limits of one request.

    Attributes:
        max_faces: Most rows of `faces`.
        max_images: Most elements of `image`.
        max_image_bytes: Most bytes of each of them.
        spec: The size of `faces`.
    """

    max_faces: int
    max_images: int
    max_image_bytes: int
    spec: InputSpec


@dataclass(frozen=True)
class RequestedOutput:
    """One requested output tensor.

    Attributes:
        name: One of `OUTPUTS`.
        binary: Whether its values follow the JSON.
        best: For `probabilities`, the number of best classes as text; 0 for all as numbers.
    """

    name: str
    binary: bool
    best: int = 0


@dataclass(frozen=True)
class InferRequest:
    """One parsed request, with either faces or images.

    Attributes:
        name: The client's id of the request, for the answer; may be empty.
        faces: uint8[n, h, w], 0-255, grey, at least one; None if there are images.
        images: Encoded pictures, at least one; empty if there are faces.
        search: The search for faces in images.
        wanted: The requested output tensors, in order.
        prior: The prior to answer under, as text; None is the default.
    """

    name: str
    faces: npt.NDArray[np.uint8] | None
    images: tuple[bytes, ...]
    search: FaceSearch
    wanted: tuple[RequestedOutput, ...]
    prior: str | None = None


def find_json(headers: Mapping[str, str], max_bytes: int) -> tuple[int | None, int]:
    """Return the length of a body's JSON, and the limit of the whole body.

    Args:
        headers: The request's, names in lower case.
        max_bytes: The limit of any body.

    Returns:
        The JSON's length in bytes, None if the whole body is JSON; most bytes of the body.

    Raises:
        BadRequest: The header is not a number above 0.
        RequestTooLarge: The JSON is too long.
    """
    said = headers.get(HEADER)
    if said is None:
        return None, min(MAX_JSON_BYTES, max_bytes)
    if not (said.isascii() and said.isdigit() and int(said[:20])):
        raise BadRequest("Inference-Header-Content-Length is not the length of any JSON.")
    if int(said[:20]) > MAX_JSON_BYTES:
        raise RequestTooLarge(
            f"At most {MAX_JSON_BYTES} bytes of JSON are read; send tensors as binary data."
        )
    return int(said[:20]), max_bytes


def read_request(body: bytearray, json_bytes: int | None, limits: InferLimits) -> InferRequest:
    """Parse a body; thread-safe.

    Args:
        body: The whole body, inflated.
        json_bytes: The length of its JSON, from `find_json`.
        limits: Of the request.

    Returns:
        The request. Faces sent as binary data are a view of `body`.

    Raises:
        BadRequest: It violates the protocol, or names unknown tensors.
        NoImage: It has neither faces nor pictures.
        TooManyImages: It has too many of them.
        ImageTooLarge: A picture is too large.
        RequestTooLarge: Its JSON has too many lists.
    """
    view = memoryview(body)
    end = len(view) if json_bytes is None else json_bytes
    if end > len(view):
        raise BadRequest("The body ends before its JSON does.")
    request, binary = _parse(bytes(view[:end])), view[end:]
    if len(request.inputs) != 1:
        raise BadRequest("Send one input: 'faces' or 'image'.")
    tensor = request.inputs[0]
    data = _binary(tensor, binary)
    faces: npt.NDArray[np.uint8] | None = None
    images: tuple[bytes, ...] = ()
    if tensor.name == "faces":
        faces = _faces(tensor, data, limits)
    elif tensor.name == "image":
        images = _images(tensor, data, limits)
    else:
        raise BadRequest("There is no such input; send 'faces' or 'image'.")
    parameters = request.parameters
    search = FaceSearch(parameters.detect, parameters.max_faces, parameters.min_face)
    wanted = _wanted(request.outputs, parameters.binary_data_output)
    return InferRequest(request.id, faces, images, search, wanted, parameters.prior)


def _parse(text: bytes) -> InferenceRequest:
    if text.count(b"[") + text.count(b"{") > MAX_LISTS:
        raise RequestTooLarge(f"At most {MAX_LISTS} lists are read; send tensors as binary data.")
    try:
        return InferenceRequest.model_validate_json(text)
    except ValidationError as error:
        # Only names of the protocol and indices: no data of the client.
        place = ".".join(map(str, error.errors(include_input=False)[0]["loc"]))
    where = f" at {place!r}" if place else ""
    raise BadRequest(f"The JSON is not a request of the Open Inference Protocol{where}.")


def _binary(tensor: Input, binary: memoryview) -> memoryview | None:
    """Return the values that follow the JSON; None if they are in it."""
    size = tensor.parameters.binary_data_size
    if (size is None) == (tensor.data is None):
        raise BadRequest("An input has either 'data' or the parameter 'binary_data_size'.")
    if len(binary) != (size or 0):
        raise BadRequest(
            f"{len(binary)} bytes follow the JSON, and binary_data_size says {size or 0}."
        )
    return None if size is None else binary


def _faces(tensor: Input, data: memoryview | None, limits: InferLimits) -> npt.NDArray[np.uint8]:
    height, width = limits.spec.height, limits.spec.width
    if tensor.datatype != "UINT8" or len(tensor.shape) != 3 or tensor.shape[1:] != [height, width]:
        raise BadRequest(f"Input 'faces' is UINT8 of shape [n, {height}, {width}].")
    count = tensor.shape[0]
    _check_count(count, limits.max_faces)
    pixels = data if data is not None else _flat(tensor.data)
    if len(pixels) != count * height * width:
        raise _mismatch("faces")
    return np.frombuffer(pixels, np.uint8).reshape(count, height, width)


def _images(tensor: Input, data: memoryview | None, limits: InferLimits) -> tuple[bytes, ...]:
    if tensor.datatype != "BYTES":
        raise BadRequest("Input 'image' is BYTES of shape [n], a whole picture file each.")
    count = math.prod(tensor.shape)
    _check_count(count, limits.max_images)
    images = _elements(data, count) if data is not None else _decoded(tensor.data, count)
    largest = limits.max_image_bytes
    if any(len(image) > largest for image in images):
        raise ImageTooLarge(f"An image has more than {largest} bytes; send a smaller one.")
    return images


def _check_count(count: int, limit: int) -> None:
    if not count:
        raise NoImage("The shape says that there is nothing; send at least one.")
    if count > limit:
        raise TooManyImages(f"At most {limit} of them a request; send the rest in another one.")


def _flat(data: Any) -> bytes:
    """Return the values of nested lists; each must be 0 to 255."""
    try:
        if data and isinstance(data[0], list):
            return b"".join(map(_row, data))
        return bytes(data)
    except (TypeError, ValueError):
        raise BadRequest("Values of 'faces' are whole numbers from 0 to 255.") from None


def _row(data: Any) -> bytes:
    if not isinstance(data, list):  # `bytes` of a number would be as many zeros
        raise TypeError
    return _flat(data)


def _elements(data: memoryview, count: int) -> tuple[bytes, ...]:
    """Split BYTES: each element is preceded by its length, four bytes, little-endian."""
    elements, place = [], 0
    for _ in range(count):
        if place + 4 > len(data):
            raise _mismatch("image")
        (length,) = struct.unpack_from("<I", data, place)
        place += 4 + length
        elements.append(bytes(data[place - length : place]))
    if place != len(data):
        raise _mismatch("image")
    return tuple(elements)


def _decoded(data: Any, count: int) -> tuple[bytes, ...]:
    if len(data) != count:
        raise _mismatch("image")
    try:
        return tuple(binascii.a2b_base64(element, strict_mode=True) for element in data)
    except (TypeError, ValueError):
        raise BadRequest("Pictures in JSON are strings of base64, in a flat list.") from None


def _mismatch(name: str) -> ServiceError:
    return BadRequest(f"The values of {name!r} are not as many as its shape says.")


def _wanted(outputs: list[Output], binary: bool) -> tuple[RequestedOutput, ...]:
    if not outputs:
        return tuple(RequestedOutput(name, binary) for name in OUTPUTS)
    names = [output.name for output in outputs]
    if len(set(names)) < len(names) or not set(names) <= set(OUTPUTS):
        raise BadRequest(f"Ask for each of {', '.join(OUTPUTS)} once or not at all.")
    return tuple(_wanted_one(output, binary) for output in outputs)


def _wanted_one(output: Output, binary: bool) -> RequestedOutput:
    parameters = output.parameters
    if parameters.shared_memory_region is not None:
        raise BadRequest("There is no shared memory; take the output from the answer.")
    if parameters.classification and output.name != "probabilities":
        raise BadRequest("'classification' is a parameter of 'probabilities' alone.")
    if parameters.binary_data is not None:
        binary = parameters.binary_data
    return RequestedOutput(output.name, binary, parameters.classification)
