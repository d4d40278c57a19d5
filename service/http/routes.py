"""HTTP in, HTTP out: what each path takes and answers.

Not its duty: the work between the two (`service.predict`), starting and stopping it
(`service.app`), the details of the API's document (`service.http.document`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pydantic_core
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from service.errors import DeadlineExceeded, NotReady, ServiceError, UploadTimeout
from service.http.disconnect import WhileConnected
from service.http.document import ONE_IMAGE, SEVERAL_IMAGES, problems
from service.http.form import FormLimits
from service.http.intake import read_image, read_images
from service.http.schemas import BatchPrediction, Health, Prediction
from service.http.state import Service


class DirectRoute(APIRoute):
    """A documented route whose endpoint takes the request and returns the response itself.

    FastAPI's own handler would resolve dependencies, spool the form to disk and validate the
    answer; none of that is wanted, and it costs more than the rest of the path.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the endpoint as it is."""
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


def add_routes(app: FastAPI) -> None:
    """Give `app` all paths of the API."""
    app.router.route_class = DirectRoute
    app.add_api_route(
        "/predict",
        predict,
        methods=["POST"],
        tags=["recognition"],
        summary="Recognise the emotion in one picture",
        response_model=Prediction,
        responses=problems(408, 413, 415, 504),
        openapi_extra=ONE_IMAGE,
    )
    app.add_api_route(
        "/predict/batch",
        predict_batch,
        methods=["POST"],
        tags=["recognition"],
        summary="Recognise the emotions in several pictures",
        response_model=BatchPrediction,
        responses=problems(408, 413, 415, 504),
        openapi_extra=SEVERAL_IMAGES,
    )
    app.add_api_route(
        "/health/live",
        live,
        methods=["GET"],
        tags=["operation"],
        summary="Whether the process answers at all",
        response_model=Health,
        responses=problems(),
    )
    app.add_api_route(
        "/health/ready",
        ready,
        methods=["GET"],
        tags=["operation"],
        summary="Whether the service takes traffic",
        response_model=Health,
        responses=problems(),
    )
    app.add_api_route(
        "/metrics",
        metrics,
        methods=["GET"],
        tags=["operation"],
        summary="Metrics for Prometheus, or OpenMetrics by content negotiation",
        response_class=Response,
        responses=problems() | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    app.add_api_route("/", root, methods=["GET"], include_in_schema=False)


async def predict(request: Request) -> Response:
    """Send one picture: as the form field `image`, or as the body with its own content type.

    JPEG, PNG, WebP, BMP, GIF (first frame) or TIFF. EXIF orientation is obeyed; what is
    transparent is seen on white. For now the whole picture is taken for the face.
    """
    service = _service(request)
    deadline = time.monotonic() + service.settings.timeout_s
    async with _stages(service) as stages:
        with service.memory.lease() as lease:
            image = await read_image(
                request.headers, request.receive, service.settings.max_image_bytes, lease
            )
            stages.received()
            async with WhileConnected(request.receive):
                answer = await service.predictor.predict(image, deadline)
    return _json(answer)


async def predict_batch(request: Request) -> Response:
    """Send several pictures as form fields `image`; each gets an answer or a problem of its own.

    The results come in the order of the pictures. A broken picture does not fail its neighbours:
    the status is 200 wherever the request itself was right.
    """
    service, settings = _service(request), _service(request).settings
    deadline = time.monotonic() + settings.timeout_s
    limits = FormLimits(settings.max_image_bytes, settings.max_request_bytes, settings.max_images)
    async with _stages(service) as stages:
        with service.memory.lease() as lease:
            uploads = await read_images(request.headers, request.receive, limits, lease)
            stages.received()
            async with WhileConnected(request.receive):
                results = await service.predictor.predict_many(uploads, deadline)
    return _json({"results": results})


async def live(_: Request) -> Response:
    """Answer as long as the event loop turns."""
    return _json({"status": "live"})


async def ready(request: Request) -> Response:
    """Answer 200 from the first warm inference until shutdown, while the network answers."""
    if (error := _service(request).check()) is not None:
        raise error
    return _json({"status": "ready"})


async def metrics(request: Request) -> Response:
    """Show every metric of the service and of its process."""
    service = _service(request)
    service.check()
    # In a thread: rendering takes milliseconds, and reads /proc.
    body, content_type = await asyncio.to_thread(
        service.metrics.render, request.headers.get("accept")
    )
    return Response(body, headers={"content-type": content_type})


async def root(request: Request) -> Response:
    """Point to the documentation."""
    return RedirectResponse(request.scope.get("root_path", "") + "/docs")


class _Stages:
    """Times the upload, and knows which error a timeout means."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._began = time.monotonic()
        self.late: ServiceError = UploadTimeout("The request's body did not arrive in time.")

    def received(self) -> None:
        self.late = DeadlineExceeded("The answer did not come in time.")
        seconds = time.monotonic() - self._began
        self._service.metrics.stage_seconds.labels("receive").observe(seconds)


@asynccontextmanager
async def _stages(service: Service) -> AsyncIterator[_Stages]:
    stages = _Stages(service)
    try:
        async with asyncio.timeout(service.settings.timeout_s):
            yield stages
    except TimeoutError:
        raise stages.late from None


def _service(request: Request) -> Service:
    service: Service | None = request.app.state.service
    if service is None:
        raise NotReady("The service is starting; try again shortly.")
    return service


def _json(body: dict[str, Any]) -> Response:
    return Response(pydantic_core.to_json(body), media_type="application/json")
