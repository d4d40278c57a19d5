"""POST /explain: the prediction for a picture with explanations, as JSON or as one figure."""

from collections.abc import Coroutine
from typing import Any

import pydantic_core
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from service.drawing.explainer import Drawing
from service.http.bodies import explanation_body
from service.http.document import ONE_IMAGE, describe_problems
from service.http.handlers import RequestContext, get_service, handle, read_one
from service.http.query import read_prior, read_search
from service.http.schemas import Explanation

_JSON, _PNG = "application/json", "image/png"
_FIGURE = {_PNG: {"schema": {"type": "string", "format": "binary"}}}


def add_explanation(app: FastAPI) -> None:
    """Add the route to `app`."""
    app.add_api_route(
        "/explain",
        explain,
        methods=["POST"],
        tags=["recognition"],
        summary="Show why the emotions in one picture were recognised",
        response_model=Explanation,
        responses=describe_problems(408, 413, 415, 501, 504) | {200: {"content": _FIGURE}},
        openapi_extra=ONE_IMAGE,
    )


async def explain(request: Request) -> Response:
    """Send one picture, as to `/predict`; at most 16 faces are explained, the largest first.

    Each face comes with what was done to straighten it, and with pictures of the straightened
    face, of the attention and of the evidence. With `Accept: image/png` the answer is one figure of
    all of that.
    """
    search = read_search(request.scope["query_string"])
    prior = read_prior(request.scope["query_string"], get_service(request).predictor.priors)
    as_figure = prefers_png(request.headers.get("accept", ""))

    render = Drawing.figure if as_figure else _to_json

    def work(context: RequestContext, image: bytearray) -> Coroutine[Any, Any, bytes]:
        return context.service.explainer.explain(
            image, context.deadline, search, render, context.allowance(len(image)), prior
        )

    answer = await handle(request, read_one, work)
    return Response(answer, media_type=_PNG if as_figure else _JSON)


def _to_json(drawing: Drawing) -> bytes:
    return pydantic_core.to_json(explanation_body(drawing))


def prefers_png(accept: str) -> bool:
    """Return whether an Accept header prefers PNG to JSON (RFC 9110, 12.5.1)."""
    return _quality(accept, _PNG) > _quality(accept, _JSON)


def _quality(accept: str, media_type: str) -> float:
    """Return the quality of a media type, 0 to 1, from the most specific matching range."""
    ranges = ("*/*", f"{media_type.partition('/')[0]}/*", media_type)
    best, quality = -1, 0.0
    for part in accept.split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if name in ranges and ranges.index(name) > best:
            best, quality = ranges.index(name), _weight(parameters)
    return quality


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0  # malformed: ignore the range
    return 1.0
