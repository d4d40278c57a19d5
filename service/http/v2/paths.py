"""The routes of the protocol, and their description in the OpenAPI document.

Every path is fixed, since there is one model; so each can be a label of the metrics.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from service.http.document import describe_problems
from service.http.problems import MEDIA_TYPE, PROTOCOL
from service.http.v2 import endpoints, messages
from service.http.v2.messages import MODEL, VERSION
from service.http.v2.requests import HEADER

_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}


def add_protocol(app: FastAPI) -> None:
    """Add the protocol's routes to `app`."""
    _get(app, PROTOCOL, endpoints.server, messages.ServerMetadata)
    _get(app, f"{PROTOCOL}/health/live", endpoints.live, messages.Live)
    _get(app, f"{PROTOCOL}/health/ready", endpoints.ready, messages.Ready)
    model = f"{PROTOCOL}/models/{MODEL}"
    for path in (model, f"{model}/versions/{VERSION}"):
        _get(app, path, endpoints.model, messages.ModelMetadata)
        _get(app, f"{path}/ready", endpoints.model_ready, messages.ModelReady)
        app.add_api_route(
            f"{path}/infer",
            endpoints.infer,
            methods=["POST"],
            tags=["Open Inference Protocol"],
            response_model=messages.InferenceAnswer,
            responses=_problems(408, 413, 415, 501, 504)
            | {200: {"content": {"application/octet-stream": _BINARY}}},
            openapi_extra=_request(),
        )


def _get(
    app: FastAPI,
    path: str,
    endpoint: Callable[[Request], Coroutine[Any, Any, Response]],
    answer: type[BaseModel],
) -> None:
    app.add_api_route(
        path,
        endpoint,
        methods=["GET"],
        tags=["Open Inference Protocol"],
        response_model=answer,
        responses=_problems(),
    )


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the problems of these statuses, with the protocol's member `error`."""
    content = {MEDIA_TYPE: {"schema": messages.InferenceProblem.model_json_schema()}}
    return {
        status: said | {"content": content} for status, said in describe_problems(*statuses).items()
    }


def _request() -> dict[str, Any]:
    schema = messages.InferenceRequest.model_json_schema()
    length = {
        "name": HEADER.title(),
        "in": "header",
        "description": "Bytes of JSON, where binary tensors follow it.",
        "schema": {"type": "integer", "minimum": 1},
    }
    content = {"application/json": {"schema": _inlined(schema, schema.get("$defs", {}))}}
    return {
        "parameters": [length],
        "requestBody": {
            "required": True,
            "content": content | {"application/octet-stream": _BINARY},
        },
    }


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Return a schema without references, which would refer to the whole document."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(item, definitions) for key, item in schema.items() if key != "$defs"}
