"""Parts of the OpenAPI document that do not follow from types: uploads and problems."""

from typing import Any

from service.http.json_image import SEVERAL, SINGLE
from service.http.problems import MEDIA_TYPE
from service.http.query import PARAMETERS

# Any request: malformed HTTP; too large a head; a defect; starting, shutting down or overloaded.
_ANY = (400, 431, 500, 503)


def describe_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the problems of these statuses, for FastAPI's `responses`.

    Those that any request may get are always included.
    """
    meanings = {
        400: "No image, not an image, a broken one, or a malformed form",
        401: "No API key, or a wrong one",
        408: "The upload took too long",
        413: "Too many bytes, pixels or images",
        415: "Neither a form nor an image, or of a kind that is not read",
        431: "Too many or too large headers",
        500: "The network failed on this face, or the service failed",
        501: "The service has no face detector",
        503: "At the limit, starting or shutting down; see Retry-After",
        504: "No answer within the deadline",
    }
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {s: {"description": meanings[s], "content": content} for s in sorted({*_ANY, *statuses})}


_FILE = {"type": "string", "format": "binary"}
_BASE64 = {"type": "string", "description": "A picture as base64, or as a data URL with base64."}


def _json(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    properties = {name: schema}
    return {
        "schema": {
            "type": "object",
            "required": [name],
            "additionalProperties": False,
            "properties": properties,
        }
    }


ONE_IMAGE = {
    "parameters": PARAMETERS,
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": _FILE | {"description": "A photograph, or a picture of a face."}
                    },
                }
            },
            "application/json": _json(SINGLE, _BASE64),
            "image/*": {"schema": _FILE},
            "application/octet-stream": {"schema": _FILE},
        },
    },
}
SEVERAL_IMAGES = {
    "parameters": PARAMETERS,
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {
                            "type": "array",
                            "items": _FILE,
                            "description": "Photographs, or pictures of faces.",
                        }
                    },
                },
                # Otherwise some clients would join the files in one field.
                "encoding": {"image": {"style": "form", "explode": True}},
            },
            "application/json": _json(SEVERAL, {"type": "array", "items": _BASE64}),
        },
    },
}
