"""Turns errors into responses: problem+json, after RFC 9457."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import pydantic_core
from starlette.responses import Response

from service.errors import ServiceError
from service.telemetry import request_id

MEDIA_TYPE = "application/problem+json"
PROTOCOL = "/v2"
"""The prefix of the Open Inference Protocol's paths."""


def problem(error: ServiceError) -> dict[str, Any]:
    """Return the body, as `service.http.schemas.Problem`, with the current request's id."""
    name = request_id.current()
    return {
        "type": f"urn:attention-fer:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "instance": f"urn:attention-fer:request:{name}" if name else None,
    }


def problem_response(
    error: ServiceError, headers: Mapping[str, str] | None = None, path: str = ""
) -> Response:
    """Return the whole response.

    Args:
        error: The error.
        headers: Further headers, e.g. Allow.
        path: The requested path. On those of the Open Inference Protocol the body also has the
            member `error`, the only one that its clients read.

    Returns:
        A response with Retry-After, in whole seconds, for status 503, and with WWW-Authenticate
        for status 401.
    """
    all_headers = dict(headers or {})
    if error.status == 401:
        all_headers["www-authenticate"] = 'Bearer realm="attention-fer"'
    if error.status == 503:
        # At least 1: the header has whole seconds, and with 0 all clients would retry at once.
        all_headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s or 1.0)))
    body = problem(error)
    if path == PROTOCOL or path.startswith(f"{PROTOCOL}/"):
        body["error"] = error.detail
    return Response(pydantic_core.to_json(body), error.status, all_headers, MEDIA_TYPE)


def problem_bytes(
    error: ServiceError, headers: Mapping[str, str] | None = None, path: str = ""
) -> bytes:
    """Return the response as HTTP/1.1 bytes, for a connection that uvicorn does not handle.

    Args:
        error: The error.
        headers: Further headers.
        path: The requested path, if known.
    """
    response = problem_response(error, headers, path)
    head = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode()]
    head += [name + b": " + value for name, value in response.raw_headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + bytes(response.body)
