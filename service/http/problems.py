"""From an error to what the client sees of it: problem+json, after RFC 9457.

Not its duty: deciding which error it is, counting or logging it.
"""

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
"""Where the Open Inference Protocol's paths begin."""


def problem(error: ServiceError) -> dict[str, Any]:
    """Return the body that `service.http.schemas.Problem` describes, naming the present request."""
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
        error: What went wrong.
        headers: Further headers, e.g. Allow.
        path: What was asked for. Clients of the Open Inference Protocol read `error` and nothing
            else: on its paths the problem has that member too.

    Returns:
        A response with Retry-After, in whole seconds, wherever trying again makes sense, and with
        WWW-Authenticate where a key is missing.
    """
    all_headers = dict(headers or {})
    if error.status == 401:
        all_headers["www-authenticate"] = 'Bearer realm="attention-fer"'
    if error.status == 503:
        # At least a second: the header knows no fractions, and 0 would invite a storm.
        all_headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s or 1.0)))
    body = problem(error)
    if path == PROTOCOL or path.startswith(f"{PROTOCOL}/"):
        body["error"] = error.detail
    return Response(pydantic_core.to_json(body), error.status, all_headers, MEDIA_TYPE)


def problem_bytes(
    error: ServiceError, headers: Mapping[str, str] | None = None, path: str = ""
) -> bytes:
    """Return the same as HTTP/1.1 has it, head and body, for a connection that no server answers.

    Args:
        error: What went wrong.
        headers: Further headers.
        path: What was asked for, if known.
    """
    response = problem_response(error, headers, path)
    head = [f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}".encode()]
    head += [name + b": " + value for name, value in response.raw_headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + bytes(response.body)
