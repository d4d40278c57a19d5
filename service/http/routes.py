"""The routes of the API, and their handlers."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from service.errors import ServiceError
from service.http.bodies import Body, prediction_body, result_body
from service.http.document import ONE_IMAGE, SEVERAL_IMAGES, describe_problems
from service.http.explain import add_explanation
from service.http.form import FormLimits, Upload
from service.http.handlers import RequestContext, get_service, handle, json_response, read_one
from service.http.query import read_prior, read_search
from service.http.schemas import BatchPrediction, Health, Prediction
from service.http.uploads import read_images


def add_routes(app: FastAPI) -> None:
    """Add the routes of the API to `app`."""
    app.add_api_route(
        "/predict",
        predict,
        methods=["POST"],
        tags=["recognition"],
        summary="Recognise the emotion in one picture",
        response_model=Prediction,
        responses=describe_problems(408, 413, 415, 501, 504),
        openapi_extra=ONE_IMAGE,
    )
    app.add_api_route(
        "/predict/batch",
        predict_batch,
        methods=["POST"],
        tags=["recognition"],
        summary="Recognise the emotions in several pictures",
        response_model=BatchPrediction,
        responses=describe_problems(408, 413, 415, 501, 504),
        openapi_extra=SEVERAL_IMAGES,
    )
    add_explanation(app)
    app.add_api_route(
        "/health/live",
        live,
        methods=["GET"],
        tags=["operation"],
        summary="Whether the process answers at all",
        response_model=Health,
        responses=describe_problems(),
    )
    app.add_api_route(
        "/health/ready",
        ready,
        methods=["GET"],
        tags=["operation"],
        summary="Whether the service takes traffic",
        response_model=Health,
        responses=describe_problems(),
    )
    app.add_api_route(
        "/metrics",
        metrics,
        methods=["GET"],
        tags=["operation"],
        summary="Metrics for Prometheus, or OpenMetrics by content negotiation",
        response_class=Response,
        responses=describe_problems()
        | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )


async def predict(request: Request) -> Response:
    """Send one picture: as the form field `image`, as the body with its own type, or in JSON.

    JPEG, PNG, WebP, BMP, GIF (first frame), TIFF or AVIF. The EXIF orientation is applied, and
    transparent parts are shown on white. The answer has the faces that were found, the largest
    first; without any, the list is empty.
    """
    search = read_search(request.scope["query_string"])
    prior = read_prior(request.scope["query_string"], get_service(request).predictor.priors)

    async def work(context: RequestContext, image: bytearray) -> Body:
        predictor = context.service.predictor
        prediction = await predictor.predict(
            image, context.deadline, search, context.allowance(len(image)), prior
        )
        return prediction_body(prediction, predictor.manifest)

    return json_response(await handle(request, read_one, work))


async def predict_batch(request: Request) -> Response:
    """Send several pictures as form fields `image`; each gets an answer or a problem of its own.

    The results are in the order of the pictures. A broken picture does not affect the others: the
    status is 200 if the request itself is valid.
    """
    search = read_search(request.scope["query_string"])
    prior = read_prior(request.scope["query_string"], get_service(request).predictor.priors)

    def read(context: RequestContext) -> Coroutine[Any, Any, list[Upload]]:
        of = context.service.settings
        limits = FormLimits(of.max_image_bytes, of.max_request_bytes, of.max_images)
        return read_images(context.headers, request.receive, limits, context.reservation)

    async def work(context: RequestContext, uploads: list[Upload]) -> list[Body]:
        predictor = context.service.predictor
        sizes = (len(upload) for upload in uploads if not isinstance(upload, ServiceError))
        allowance = context.allowance(sum(sizes))
        deadline = context.deadline
        results = await predictor.predict_many(uploads, deadline, search, allowance, prior)
        return [result_body(result, predictor.manifest) for result in results]

    return json_response({"results": await handle(request, read, work)})


async def live(_: Request) -> Response:
    """Answer 200 as long as the event loop runs."""
    return json_response({"status": "live"})


async def ready(request: Request) -> Response:
    """Answer 200 from the first warm inference until shutdown, while the network answers."""
    if (error := get_service(request).check()) is not None:
        raise error
    return json_response({"status": "ready"})


async def metrics(request: Request) -> Response:
    """Show every metric of the service and of its process."""
    service = get_service(request)
    service.check()
    # In a thread: rendering takes milliseconds, and reads /proc.
    body, content_type = await asyncio.to_thread(
        service.metrics.render, request.headers.get("accept")
    )
    return Response(body, headers={"content-type": content_type})
