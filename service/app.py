"""The application: the parts joined, started and stopped.

Not its duty: sockets and signals (`service.__main__`), or any one request.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.config import Settings, SettingsError
from service.drawing.explainer import Explainer
from service.engines import FaceEngine, open_engine, start_batcher
from service.errors import BadRequest, MethodNotAllowed, NotFound, ServiceError
from service.http.admission import Admission
from service.http.api_keys import ApiKeyMiddleware, ApiKeys, describe_keys, open_to
from service.http.dispatch import Dispatch
from service.http.docs import add_docs, find_swagger_ui
from service.http.door import Door
from service.http.express import Express
from service.http.page import add_page
from service.http.problems import PROTOCOL
from service.http.request_context import (
    ErrorMiddleware,
    RequestContextMiddleware,
    reject,
    unexpected,
)
from service.http.request_metrics import RequestMetrics
from service.http.routes import add_routes
from service.http.state import Service
from service.http.upload_memory import UploadMemory
from service.http.v2.messages import MODEL, VERSION
from service.http.v2.paths import add_protocol
from service.pictures.decode import prepare_pillow
from service.pictures.detector import Detector
from service.pictures.finder import FaceFinder
from service.pictures.model_file import ModelFileError, read_model
from service.pictures.pool import DecodePool
from service.pipeline import Predictor
from service.queue.backend import InferenceBackend
from service.queue.batcher import Batcher
from service.remote.client import RemoteBackend
from service.remote.protocol import EngineInfo
from service.server.registry import REPORT_EVERY_S, WorkerSlot
from service.telemetry.gpu import GpuWatch
from service.telemetry.metrics import Metrics
from service.telemetry.nvml import open_nvml, uuid_of
from service.telemetry.shared_metrics import registry_of_all

_log = logging.getLogger(__name__)

_DESCRIPTION = (
    "Recognises the emotion on a face. Every error is problem+json (RFC 9457) with a stable "
    "`code`. Pictures are held in memory until answered, and nowhere else."
)


def create_app(
    settings: Settings,
    engine: FaceEngine | RemoteBackend | None = None,
    worker_slot: WorkerSlot | None = None,
) -> FastAPI:
    """Make the ASGI application. It is cold until its lifespan starts.

    Args:
        settings: The operator's.
        engine: What classifies faces, or the way to what does in another process; None opens the
            one that the settings name, at start-up.
        worker_slot: This process's place among several workers, None if it is the only one.

    Returns:
        The application. Its metrics are on a registry of its own.

    Raises:
        SettingsError: A path that is to be open does not exist.
    """
    shown = None if worker_slot is None else registry_of_all(worker_slot.workers)
    metrics = Metrics(CollectorRegistry(), shown)
    swagger_ui = find_swagger_ui()
    app = FastAPI(
        title="attention-fer",
        description=_DESCRIPTION,
        version="1",
        docs_url="/docs" if swagger_ui is None else None,
        redoc_url=None,
        # A redirect would quote the client's Host header, and lose the upload.
        redirect_slashes=False,
        # Nothing of a request, nor of what it raises, leaves by another way than our own metrics
        # and log, whatever the environment says; and nobody is asked whether it should.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        lifespan=lambda app: _lifespan(app, settings, engine, metrics, worker_slot),
    )
    app.state.service = None
    app.state.metrics = metrics
    page = add_page(app)
    add_routes(app)
    add_protocol(app)
    if swagger_ui is not None:
        add_docs(app, swagger_ui)

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # registered for nothing else
        path = request.scope["path"]
        return reject(_as_service_error(error, path), metrics, dict(error.headers or {}), path)

    app.add_exception_handler(HTTPException, refuse)
    _surround(app, settings, metrics, page)
    return app


def _surround(
    app: FastAPI, settings: Settings, metrics: Metrics, always_open: frozenset[str]
) -> None:
    """Put the middleware around the routes, the innermost first, and what goes around it."""
    app.add_middleware(Dispatch, routes=app.routes)
    paths = {path for route in app.routes if (path := getattr(route, "path", None))}
    keys = ApiKeys(settings.api_keys) if settings.api_keys else None
    for path in settings.open_paths:
        if path not in paths:
            raise SettingsError(
                f"FER_OPEN_PATHS has {path!r}, expected some of {', '.join(sorted(paths))}"
            )
    if keys is not None:
        open_paths = always_open.union(settings.open_paths)
        app.add_middleware(ApiKeyMiddleware, keys=keys, open_paths=open_paths)
        describe_keys(app, settings.open_paths)
    app.add_middleware(ErrorMiddleware, metrics=metrics)
    if settings.cors_origins:  # answers have further headers then, which are the middleware's
        open_to(app, settings.cors_origins)
    request_metrics = RequestMetrics(metrics, paths)
    app.add_middleware(RequestContextMiddleware, request_metrics=request_metrics)
    app.state.door = Door(lambda: app.state.service, app.routes, metrics, request_metrics, keys)
    app.state.express = Express(
        lambda: None if settings.cors_origins else app.state.service, metrics, request_metrics, keys
    )


@asynccontextmanager
async def _lifespan(
    app: FastAPI,
    settings: Settings,
    engine: FaceEngine | RemoteBackend | None,
    metrics: Metrics,
    worker_slot: WorkerSlot | None,
) -> AsyncIterator[None]:
    prepare_pillow(settings.max_image_pixels)
    batcher, about = await _start_engine(settings, engine, metrics)
    detector = await asyncio.to_thread(open_detector, settings)
    service = _start(settings, about, batcher, detector, metrics, worker_slot)
    app.state.service = service
    service.check()
    reporting = None if worker_slot is None else asyncio.create_task(_report(service))
    watch = GpuWatch(metrics.gpu, about.device, lambda _: open_nvml(about.gpu))
    if about.gpu:
        watch.start()
    try:
        yield
    finally:
        await _drain(service)
        watch.stop()
        service.pool.close()
        if reporting is not None:
            reporting.cancel()


async def _start_engine(
    settings: Settings, engine: FaceEngine | RemoteBackend | None, metrics: Metrics
) -> tuple[InferenceBackend, EngineInfo]:
    """Start the queue before the engine, or reach the one of another process; say what it is."""
    if isinstance(engine, RemoteBackend):
        await engine.start()
        return engine, engine.hello
    if engine is None:
        engine = await asyncio.to_thread(open_engine, settings)
    batcher = await start_batcher(settings, engine, metrics)
    return batcher, EngineInfo(engine.manifest, engine.device, uuid_of(engine.device))


async def _report(service: Service) -> None:
    """Tell the other workers how this one is, and that it lives."""
    while True:
        service.check()
        await asyncio.sleep(REPORT_EVERY_S)


async def _drain(service: Service) -> None:
    """Finish what was accepted, in what is left of the drain's time, and refuse the rest."""
    service.begin_drain()
    assert service.drain_by is not None  # the line above sets it
    await service.batcher.drain(max(0.0, service.drain_by - time.monotonic()))


def open_detector(settings: Settings) -> Detector | None:
    """Load the face detector, or say that there is none and every picture is a face.

    Args:
        settings: Where its weights are.
    """
    try:
        content = read_model(settings.detector)
    except ModelFileError as error:
        _log.warning("faces are not looked for, every picture is taken for one: %s", error)
        return None
    # Only now: it loads torch, which a process that looks for no faces may not need.
    from service.pictures.retinaface import CpuLook, load_network

    network = load_network(content)
    return Detector(CpuLook(network, settings.torch_threads, settings.precision))


def _start(
    settings: Settings,
    about: EngineInfo,
    batcher: InferenceBackend,
    detector: Detector | None,
    metrics: Metrics,
    worker_slot: WorkerSlot | None,
) -> Service:
    """Start the parts, on the event loop, around an engine that answers."""
    manifest = about.manifest
    metrics.describe_model(manifest.name, manifest.version, about.device, manifest.emotions)
    pool = DecodePool(settings.decode_threads, settings.queue_size)
    # A core alone gains nothing by a thread that decodes beside whoever wants the faces.
    makes_faces = settings.fills_cores and isinstance(batcher, RemoteBackend)
    if about.device == "cpu" and isinstance(batcher, Batcher):
        batcher.give_way_while(pool.crowded)
        makes_faces = settings.fills_cores
    finder = FaceFinder(manifest.input_spec, settings.max_image_pixels, detector)
    predictor = Predictor(manifest, batcher, pool, metrics, finder, makes_faces)
    explainer = Explainer(predictor, pool, metrics, settings.max_image_pixels)
    admission = Admission(settings.queue_size, workers=worker_slot.workers if worker_slot else None)
    memory = UploadMemory(settings.max_buffered_bytes)
    parts = (batcher, pool, predictor, explainer, admission, memory)
    return Service(settings, metrics, about, *parts, worker_slot)


def _as_service_error(error: HTTPException, path: str) -> ServiceError:
    """Say in the service's own words what the router found."""
    if error.status_code == 404 and path.startswith(f"{PROTOCOL}/"):
        return NotFound(f"There is nothing here; the model is {MODEL!r}, its version {VERSION!r}.")
    if error.status_code == 404:
        return NotFound("There is nothing here; see /docs.")
    if error.status_code == 405:
        return MethodNotAllowed("Use a method that the Allow header names.")
    if error.status_code < 500:
        return BadRequest("The request is malformed; see /docs.")
    return unexpected()
