"""From a request's body to what it asks: faces or pictures, and which tensors are wanted.

    {"inputs": [{"name": "faces", "parameters": {"binary_data_size": 2304}, ...}]} 2304 bytes
    Inference-Header-Content-Length ───────────────────────────────────────────▶│

Whatever is wrong is told before anything is computed. Not its duty: receiving the body; decoding
pictures.
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
"""The tensors of an answer, a row a face, in the order that they come in unless asked for."""
HEADER = "inference-header-content-length"
MAX_JSON_BYTES = 4 << 20
"""Python makes many times as much of JSON, and reads no other request meanwhile."""
MAX_LISTS = 1 << 15
"""Lists and objects in it: a row each of as many faces as fit. A million of them take seconds."""


@dataclass(frozen=True)
class InferLimits:
    """How much one request may bring.

    Attributes:
        max_faces: Rows of `faces`.
        max_images: Elements of `image`.
        max_image_bytes: Of each of them.
        spec: What `faces` must be.
    """

    max_faces: int
    max_images: int
    max_image_bytes: int
    spec: InputSpec


@dataclass(frozen=True)
class Wanted:
    """One tensor of the answer.

    Attributes:
        name: One of `OUTPUTS`.
        binary: Whether its values follow the JSON.
        best: Of the probabilities, so many of the best classes as text; 0 for all as numbers.
    """

    name: str
    binary: bool
    best: int = 0


@dataclass(frozen=True)
class Asked:
    """One request, understood. Either faces or images.

    Attributes:
        name: The client's for it, to be sent back; empty if it has none.
        faces: uint8[n, h, w], 0-255, grey, at least one; None where there are images.
        images: Encoded pictures, at least one; empty where there are faces.
        search: How faces are looked for in images.
        wanted: The tensors to answer, in order.
    """

    name: str
    faces: npt.NDArray[np.uint8] | None
    images: tuple[bytes, ...]
    search: FaceSearch
    wanted: tuple[Wanted, ...]


def find_json(headers: Mapping[str, str], max_bytes: int) -> tuple[int | None, int]:
    """Return where a body's JSON ends, and how long the body may be.

    Args:
        headers: The request's, names in lower case.
        max_bytes: Of a body, however it is sent.

    Returns:
        The JSON's length in bytes, None where it is all there is; most bytes of the whole.

    Raises:
        BadRequest: The header does not name a number above 0.
        RequestTooLarge: Too much JSON.
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


def read_request(body: bytearray, json_bytes: int | None, limits: InferLimits) -> Asked:
    """Understand a body. Any thread may call it.

    Args:
        body: The whole of it, inflated.
        json_bytes: Where its JSON ends, as `find_json` says.
        limits: How much it may bring.

    Returns:
        What it asks. Faces that came as binary data are a view of `body`.

    Raises:
        BadRequest: It does not follow the protocol, or asks for what there is not.
        NoImage: It has no face and no picture.
        TooManyImages: It has too many.
        ImageTooLarge: One of its pictures is.
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
    search = FaceSearch(parameters.detect, parameters.max_faces)
    wanted = _wanted(request.outputs, parameters.binary_data_output)
    return Asked(request.id, faces, images, search, wanted)


def _parse(text: bytes) -> InferenceRequest:
    if text.count(b"[") + text.count(b"{") > MAX_LISTS:
        raise RequestTooLarge(f"At most {MAX_LISTS} lists are read; send tensors as binary data.")
    try:
        return InferenceRequest.model_validate_json(text)
    except ValidationError as error:
        # Names of our own and places in lists: nothing of what the client wrote.
        place = ".".join(map(str, error.errors(include_input=False)[0]["loc"]))
    where = f" at {place!r}" if place else ""
    raise BadRequest(f"The JSON is not a request of the Open Inference Protocol{where}.")


def _binary(tensor: Input, binary: memoryview) -> memoryview | None:
    """Return the values that follow the JSON; None where they are in it."""
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
    """Return the values of lists, however nested; each must be 0 to 255."""
    try:
        if data and isinstance(data[0], list):
            return b"".join(map(_row, data))
        return bytes(data)
    except (TypeError, ValueError):
        raise BadRequest("Values of 'faces' are whole numbers from 0 to 255.") from None


def _row(data: Any) -> bytes:
    if not isinstance(data, list):  # of a number `bytes` would make as many zeros
        raise TypeError
    return _flat(data)


def _elements(data: memoryview, count: int) -> tuple[bytes, ...]:
    """Split BYTES: before each element its length, four bytes, the lowest first."""
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


def _wanted(outputs: list[Output], binary: bool) -> tuple[Wanted, ...]:
    if not outputs:
        return tuple(Wanted(name, binary) for name in OUTPUTS)
    names = [output.name for output in outputs]
    if len(set(names)) < len(names) or not set(names) <= set(OUTPUTS):
        raise BadRequest(f"Ask for each of {', '.join(OUTPUTS)} once or not at all.")
    return tuple(_wanted_one(output, binary) for output in outputs)


def _wanted_one(output: Output, binary: bool) -> Wanted:
    parameters = output.parameters
    if parameters.shared_memory_region is not None:
        raise BadRequest("There is no shared memory; take the output from the answer.")
    if parameters.classification and output.name != "probabilities":
        raise BadRequest("'classification' is a parameter of 'probabilities' alone.")
    if parameters.binary_data is not None:
        binary = parameters.binary_data
    return Wanted(output.name, binary, parameters.classification)
