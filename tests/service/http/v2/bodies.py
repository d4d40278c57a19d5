"""Requests of the Open Inference Protocol, as a client would write them."""

import json
import struct
from typing import Any

import numpy as np

INFER = "/v2/models/attention-fer/infer"


def faces_json(*levels: int, **changes: Any) -> dict[str, Any]:
    """Return a request for flat faces of these grey levels, all of it JSON."""
    data = np.repeat(np.array(levels, np.uint8), 48 * 48).tolist()
    tensor = {"name": "faces", "datatype": "UINT8", "shape": [len(levels), 48, 48], "data": data}
    return {"inputs": [tensor | changes]}


def elements(*images: bytes) -> bytes:
    """Return pictures as the binary values of a BYTES tensor."""
    return b"".join(struct.pack("<I", len(image)) + image for image in images)


def binary(name: str, datatype: str, shape: list[int], data: bytes, **request: Any) -> bytes:
    """Return a whole body with one binary tensor; `header` says how long its JSON is."""
    tensor = {"name": name, "datatype": datatype, "shape": shape}
    parameters = {"parameters": {"binary_data_size": len(data)}}
    return json.dumps({"inputs": [tensor | parameters]} | request).encode() + data


def images(*pictures: bytes, **request: Any) -> bytes:
    """Return a whole body with pictures."""
    return binary("image", "BYTES", [len(pictures)], elements(*pictures), **request)


def header(body: bytes) -> dict[str, str]:
    """Return the header that says where a body's JSON ends."""
    _, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    return {"inference-header-content-length": str(end)}
