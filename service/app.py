"""The application: creates, connects, starts and stops the parts."""

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service import __version__
from service.config import Settings, SettingsError
from service.drawing.explainer import Explainer
from service.engine.contract import Engine, EngineInfo
from service.engine.loading import open_engine
from service.engine.prior import Priors
from service.errors import BadRequest, MethodNotAllowed, NotFound, ServiceError
from service.host import count_cores
from service.http.admission import Admission
from service.http.api_keys import ApiKeyMiddleware, ApiKeys, add_cors, describe_keys
from service.http.docs import DOCUMENT, add_docs, find_swagger_ui
from service.http.early_rejection import EarlyRejection
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
from service.queue.startup import start_batcher
from service.remote.client import RemoteBackend
from service.server.malloc import tune_malloc
from service.server.process import run
from service.server.registry import REPORT_EVERY_S, WorkerSlot
from service.server.supervisor import exit_cleanly_on_signals
from service.telemetry.gpu import GpuMonitor
from service.telemetry.logs import capture_standard_error
from service.telemetry.metrics import Metrics
from service.telemetry.nvml import device_uuid, open_nvml
from service.telemetry.shared_metrics import aggregate_registry

_log = logging.getLogger(__name__)

_DESCRIPTION = (
    "Recognises the emotion on a face. Every error is problem+json (RFC 9457) with a stable "
    "`code`. Pictures are held in memory until answered, and nowhere else."
)


def serve(
    settings: Settings,
    listener: socket.socket,
    engine: Engine | None = None,
    remote: RemoteBackend | None = None,
    worker_slot: WorkerSlot | None = None,
) -> None:
    """Load the engine and serve until SIGTERM or SIGINT; in the main thread.

    Args:
        settings: The operator's.
        listener: Bound.
        engine: As for `create_app`.
        remote: As for `create_app`.
        worker_slot: As for `create_app`.

    Raises:
        SettingsError: A setting is invalid, or another process took the port meanwhile.
        CheckpointError: The checkpoint cannot be used.
        EngineError: The device is not available.
    """
    began = time.monotonic()
    exit_cleanly_on_signals()
    if settings.log_format == "json":
        capture_standard_error()
    tune_malloc()
    if remote is None and engine is None:
        engine = open_engine(settings)
    run(create_app(settings, engine, remote, worker_slot), settings, listener, began, worker_slot)


def create_app(
    settings: Settings,
    engine: Engine | None = None,
    remote: RemoteBackend | None = None,
    worker_slot: WorkerSlot | None = None,
) -> FastAPI:
    """Create the ASGI application. Its lifespan starts the parts.

    Args:
        settings: The operator's.
        engine: The engine of this process; None loads the one that the settings name, at start.
        remote: The engines of other processes, instead of one in this process.
        worker_slot: This process's slot among several workers; None if it is the only one.

    Returns:
        The application. Its metrics are on a separate registry.

    Raises:
        SettingsError: A path in FER_OPEN_PATHS does not exist, or the detector's weights do not.
    """
    shown = None if worker_slot is None else aggregate_registry(worker_slot.workers)
    metrics = Metrics(CollectorRegistry(), shown)
    weights = read_detector(settings)
    swagger_ui = find_swagger_ui()
    app = FastAPI(
        title="attention-fer",
        description=_DESCRIPTION,
        version=__version__,
        docs_url="/docs" if swagger_ui is None else None,
        openapi_url=DOCUMENT,
        # Relative to the document, so that it works behind a proxy's path prefix.
        servers=[{"url": "."}],
        redoc_url=None,
        # A redirect would quote the client's Host header, and lose the upload.
        redirect_slashes=False,
        # Data of requests and errors goes to our own metrics and log only, whatever the
        # environment configures.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        lifespan=lambda app: _lifespan(app, settings, engine, remote, worker_slot, weights),
    )
    app.state.service = None
    app.state.metrics = metrics
    # In the order of traffic: the router tries one route after the other.
    add_routes(app)
    add_protocol(app)
    always_open = add_page(app)
    if swagger_ui is not None:
        always_open |= add_docs(app, swagger_ui)

    async def answer_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # registered for this class only
        path = request.scope["path"]
        return reject(_as_service_error(error, path), metrics, dict(error.headers or {}), path)

    app.add_exception_handler(HTTPException, answer_error)
    _add_middleware(app, settings, metrics, always_open)
    return app


def _add_middleware(
    app: FastAPI, settings: Settings, metrics: Metrics, always_open: frozenset[str]
) -> None:
    """Add the middleware, the innermost first."""
    paths = {path for route in app.routes if (path := getattr(route, "path", None))}
    predictions = _find_prediction_paths(app)
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
    if settings.cors_origins:  # adds headers to answers
        add_cors(app, settings.cors_origins)
    app.add_middleware(
        EarlyRejection,
        service=lambda: app.state.service,
        paths=predictions,
        metrics=metrics,
        keys=keys,
    )
    request_metrics = RequestMetrics(metrics, paths, predictions)
    app.add_middleware(RequestContextMiddleware, request_metrics=request_metrics, paths=paths)


def _find_prediction_paths(app: FastAPI) -> set[str]:
    """Return the paths that accept POST: a POST asks for a prediction, and nothing else does."""
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    return {route.path for route in routes if "POST" in (route.methods or ())}


@asynccontextmanager
async def _lifespan(
    app: FastAPI,
    settings: Settings,
    engine: Engine | None,
    remote: RemoteBackend | None,
    worker_slot: WorkerSlot | None,
    weights: bytes | None,
) -> AsyncIterator[None]:
    metrics: Metrics = app.state.metrics
    prepare_pillow(settings.max_image_pixels)
    backend, about = await _start_backend(settings, engine, remote, metrics)
    detector = None
    if weights is not None:
        detector = await asyncio.to_thread(open_detector, weights, settings)
    service = _start(settings, about, backend, detector, metrics, worker_slot)
    app.state.service = service
    service.check()
    reporting = None if worker_slot is None else asyncio.create_task(_report(service))
    watch = GpuMonitor(metrics.gpu, about.device, lambda _: open_nvml(about.gpu))
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


async def _start_backend(
    settings: Settings, engine: Engine | None, remote: RemoteBackend | None, metrics: Metrics
) -> tuple[InferenceBackend, EngineInfo]:
    """Connect to the engines of other processes, or start the queue of the engine in this one."""
    if remote is not None:
        await remote.start()
        return remote, remote.info
    here = await asyncio.to_thread(open_engine, settings) if engine is None else engine
    batcher = await start_batcher(settings, here, metrics)
    return batcher, EngineInfo(here.manifest, here.device, device_uuid(here.device))


async def _report(service: Service) -> None:
    """Report this worker's health to the other workers, periodically."""
    while True:
        service.check()
        await asyncio.sleep(REPORT_EVERY_S)


async def _drain(service: Service) -> None:
    """Finish the accepted requests in the rest of the drain time, and refuse new ones."""
    service.begin_drain()
    assert service.drain_by is not None  # the line above sets it
    await service.batcher.drain(max(0.0, service.drain_by - time.monotonic()))


def read_detector(settings: Settings) -> bytes | None:
    """Return the face detector's weights; None if the settings name none.

    Args:
        settings: Name the file.

    Raises:
        SettingsError: It is missing, or another.
    """
    if settings.detector is None:
        return None
    try:
        return read_model(settings.detector)
    except ModelFileError as error:
        raise SettingsError(f"{error}; FER_DETECTOR=none serves without finding faces") from error


def open_detector(weights: bytes, settings: Settings) -> Detector:
    """Load the face detector.

    Args:
        weights: From `read_detector`.
        settings: How to compute.
    """
    # Only now: it loads torch, which a process that looks for no faces may not need.
    from service.pictures.retinaface import CpuLook, load_network

    return Detector(CpuLook(load_network(weights), settings.torch_threads, settings.precision))


def _start(
    settings: Settings,
    about: EngineInfo,
    backend: InferenceBackend,
    detector: Detector | None,
    metrics: Metrics,
    worker_slot: WorkerSlot | None,
) -> Service:
    """Create and start the parts, on the event loop, after the backend has started."""
    manifest, priors = about.manifest, Priors(about.manifest, settings.prior)
    names = manifest.name, manifest.version, about.device, priors.default.kind
    metrics.describe_model(*names, manifest.emotions)
    threads = settings.decode_threads or count_cores()
    pool = DecodePool(threads, settings.queue_size, settings.max_decode_bytes)
    if about.device == "cpu":
        backend.defer_batches_while(pool.saturated)
    finder = FaceFinder(manifest.input_spec, settings.max_image_pixels, detector)
    predictor = Predictor(priors, backend, pool, metrics, finder)
    explainer = Explainer(predictor, pool, metrics, settings.max_image_pixels)
    admission = Admission(settings.queue_size, overload=worker_slot)
    memory = UploadMemory(settings.max_buffered_bytes)
    parts = (backend, pool, predictor, explainer, admission, memory)
    return Service(settings, metrics, about, *parts, worker_slot)


def _as_service_error(error: HTTPException, path: str) -> ServiceError:
    """Translate an error of the router."""
    if error.status_code == 404 and path.startswith(f"{PROTOCOL}/"):
        return NotFound(f"There is nothing here; the model is {MODEL!r}, its version {VERSION!r}.")
    if error.status_code == 404:
        return NotFound("There is nothing here; see /docs.")
    if error.status_code == 405:
        return MethodNotAllowed("Use a method that the Allow header names.")
    if error.status_code < 500:
        return BadRequest("The request is malformed; see /docs.")
    return unexpected()
