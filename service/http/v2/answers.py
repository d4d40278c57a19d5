"""Builds the answer: JSON, followed by binary tensors."""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pydantic_core
from starlette.responses import Response

from service.engine.prior import Prior
from service.http.v2.messages import MODEL, VERSION
from service.http.v2.metadata import checkpoint_parameters
from service.http.v2.requests import HEADER, InferRequest, RequestedOutput
from training.model.manifest import Manifest


@dataclass(frozen=True)
class Row:
    """One face of the answer.

    Attributes:
        image_index: The index of its picture, or of its row in `faces`.
        box: x, y, width and height in that picture, in pixels.
        emotion: The most probable one.
        probabilities: Of every emotion, in the manifest's order, 0 to 1.
    """

    image_index: int
    box: tuple[int, ...]
    emotion: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Rows:
    """The faces of a request.

    Attributes:
        rows: One for each face of the answer.
        faces_found: How many faces its pictures have; None where it sent faces.
        truncated: Whether faces may be missing from `rows`.
    """

    rows: Sequence[Row]
    faces_found: int | None = None
    truncated: bool = False


@dataclass(frozen=True)
class _Tensor:
    """Values in row-major order; str for BYTES."""

    datatype: str
    shape: list[int]
    values: list[Any]


def respond(request: InferRequest, rows: Rows, manifest: Manifest, prior: Prior) -> Response:
    """Return the whole response.

    Args:
        request: The request.
        rows: Its faces; there may be none, for tensors without rows.
        manifest: The checkpoint's.
        prior: That the rows are under.
    """
    outputs: list[dict[str, Any]] = []
    tail = b""
    for wanted in request.wanted:
        tensor = _tensor(wanted, rows.rows, manifest.emotions)
        output: dict[str, Any] = {
            "name": wanted.name,
            "datatype": tensor.datatype,
            "shape": tensor.shape,
        }
        if wanted.binary:
            data = _PACK[tensor.datatype](tensor.values)
            output["parameters"] = {"binary_data_size": len(data)}
            tail += data
        else:
            output["data"] = tensor.values
        outputs.append(output)
    body = {
        "model_name": MODEL,
        "model_version": VERSION,
        "parameters": checkpoint_parameters(manifest, prior) | _search_parameters(rows),
    }
    text = pydantic_core.to_json(
        body | ({"id": request.name} if request.name else {}) | {"outputs": outputs}
    )
    if not any(wanted.binary for wanted in request.wanted):
        return Response(text, media_type="application/json")
    return Response(text + tail, headers={HEADER: str(len(text))}, media_type=_BINARY)


_BINARY = "application/octet-stream"


def _search_parameters(rows: Rows) -> dict[str, int | bool]:
    if rows.faces_found is None:
        return {}
    return {"faces_found": rows.faces_found, "truncated": rows.truncated}


def _tensor(wanted: RequestedOutput, rows: Sequence[Row], emotions: Sequence[str]) -> _Tensor:
    count = len(rows)
    if wanted.name == "emotion":
        return _Tensor("BYTES", [count], [row.emotion for row in rows])
    if wanted.name == "image_index":
        return _Tensor("INT32", [count], [row.image_index for row in rows])
    if wanted.name == "box":
        return _Tensor("INT32", [count, 4], [side for row in rows for side in row.box])
    if wanted.best:
        best = min(wanted.best, len(emotions))
        texts = [text for row in rows for text in _best(row.probabilities, emotions, best)]
        return _Tensor("BYTES", [count, best], texts)
    values = [value for row in rows for value in row.probabilities]
    return _Tensor("FP32", [count, len(emotions)], values)


def _best(probabilities: Sequence[float], emotions: Sequence[str], count: int) -> list[str]:
    """Return the `count` most probable as Triton's "value:index:label"."""
    order = sorted(range(len(emotions)), key=lambda place: -probabilities[place])[:count]
    return [f"{probabilities[place]:.6f}:{place}:{emotions[place]}" for place in order]


def _pack_bytes(values: list[Any]) -> bytes:
    texts = [value.encode() for value in values]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


_PACK: Final[Mapping[str, Callable[[list[Any]], bytes]]] = {
    "FP32": lambda values: np.array(values, "<f4").tobytes(),
    "INT32": lambda values: np.array(values, "<i4").tobytes(),
    "BYTES": _pack_bytes,
}
