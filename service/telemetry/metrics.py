"""Every metric of the service, declared once, on an injected registry.

Names and units follow Prometheus' conventions. Label values come from fixed sets only, so that
no client can create series. Each part of the service records its own metrics.
"""

from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.exposition import choose_encoder

from service.errors import ServiceError
from service.telemetry.gpu import GpuMetrics

STAGES = ("receive", "decode", "queue", "inference", "draw")
"""The stages of a request, in order: the values of the label `stage`."""

KINDS = PREDICTION, OTHER = "prediction", "other"
"""What a request asks for: the values of the label `kind`."""

DROPPED = ("limit", "header_timeout", "unread")
"""Why the service ends a connection: too many, no request in time, an answer that is not read."""

# From 0.1 ms (a stage of an idle service) to beyond the default deadline of 10 s.
_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_OPENMETRICS = "application/openmetrics-text"
_BATCH_FACES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_CONFIDENCE = tuple(tenths / 10 for tenths in range(1, 11))
_PIXELS = (1e3, 1e4, 1e5, 3e5, 1e6, 3e6, 1e7, 2.5e7, 5e7, 1e8)


class Metrics:
    """The metrics as attributes. Any thread may record; the event loop renders.

    Attributes:
        requests: Answered requests. Labels `route` (the template, or "unmatched"), `kind`
            (`PREDICTION` or `OTHER`), `method`, `status`.
        request_seconds: From the request's head to the answer's end. Labels `route`, `kind`.
        stage_seconds: Time per stage. Label `stage`, one of `STAGES`. Queue and inference are
            observed once per request and batch that it takes part in.
        stage: The same, by stage.
        queue_faces: Faces that wait now.
        queue_limit_faces: Faces that may wait.
        batch_limit_faces: Largest size of a batch.
        batch_faces: Sizes of the batches that reached the engine.
        engine_busy_seconds: Time in the engine; its rate is the engine's saturation.
        engines: Engines that compute, over all processes.
        engine_failures: Calls of the engine that raised or returned an invalid answer.
        faces: Faces answered. Label `emotion`, the most probable one.
        confidence: Probability of that emotion. Label `emotion`.
        rejections: Requests answered with an error. Label `reason`, a `ServiceError.code`.
        image_pixels: Sizes of the pictures that were decoded.
        faceless: Pictures in which no face was found.
        truncated: Pictures whose answer may lack faces, because of a cap.
        abandoned_faces: Faces whose client disconnected before inference.
        model_info: 1 for the model that is served. Labels `name`, `version`, `device`, and `prior`,
            that of requests that name none.
        connections: Open connections.
        connections_dropped: Connections that the service ended. Label `reason`, one of `DROPPED`.
        ready: 1 while the service takes traffic, else 0.
        workers: Configured number of worker processes.
        workers_ready: Workers that take traffic.
        gpu: Memory and utilisation of the GPU, if there is one.
    """

    def __init__(self, registry: CollectorRegistry, shown: CollectorRegistry | None = None) -> None:
        """Declare every metric on `registry`, with a zero wherever the labels are known.

        Args:
            registry: Accepts each metric once; a second `Metrics` needs another registry.
            shown: The registry that a scrape renders; by default `registry`. With several workers
                it aggregates all of them.
        """
        self.registry = registry
        self._shown = shown or registry
        self.gpu = GpuMetrics()
        self._shown.register(self.gpu)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._declare_requests(registry)
        self._declare_queue(registry)
        self._declare_engine(registry)
        # A rate needs the zero before the first event.
        self.stage = {stage: self.stage_seconds.labels(stage) for stage in STAGES}
        for reason in DROPPED:
            self.connections_dropped.labels(reason)
        for error in ServiceError.__subclasses__():
            self.rejections.labels(error.code)

    def _declare_requests(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "fer_requests_total",
            "Answered HTTP requests; kind is prediction or other.",
            ("route", "kind", "method", "status"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "fer_request_seconds",
            "Time from a request's head to the end of its answer; kind is prediction or other.",
            ("route", "kind"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "fer_stage_seconds",
            "Time that a request spent in one stage.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.connections = Gauge(
            "fer_connections",
            "Open connections.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.connections_dropped = Counter(
            "fer_connections_dropped_total",
            "Connections that the service ended.",
            ("reason",),
            registry=registry,
        )
        self.rejections = Counter(
            "fer_rejections_total",
            "Requests answered with an error, by its code.",
            ("reason",),
            registry=registry,
        )
        self.image_pixels = Histogram(
            "fer_image_pixels",
            "Pixels of the decoded pictures.",
            buckets=_PIXELS,
            registry=registry,
        )

        self.faceless = Counter(
            "fer_faceless_images_total",
            "Pictures in which no face was found.",
            registry=registry,
        )
        self.truncated = Counter(
            "fer_truncated_images_total",
            "Pictures whose answer may lack faces, because of a cap or a cut file.",
            registry=registry,
        )

    def _declare_queue(self, registry: CollectorRegistry) -> None:
        # Each process may have a queue: their sum is what the host holds.
        self.queue_faces = Gauge(
            "fer_queue_faces",
            "Faces that wait for the engine.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.queue_limit_faces = Gauge(
            "fer_queue_limit_faces",
            "Faces that may wait for the engine.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.batch_limit_faces = Gauge(
            "fer_batch_limit_faces",
            "Faces that a batch may have.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.batch_faces = Histogram(
            "fer_batch_faces",
            "Faces in each batch that reached the engine.",
            buckets=_BATCH_FACES,
            registry=registry,
        )
        self.abandoned_faces = Counter(
            "fer_abandoned_faces_total",
            "Faces whose client was gone before inference.",
            registry=registry,
        )
        self.ready = Gauge(
            "fer_ready",
            "1 while the service takes traffic, else 0.",
            registry=registry,
            # Each worker reports it for all; the one that answers the scrape has the latest value.
            multiprocess_mode="livemostrecent",
        )
        self.workers = Gauge(
            "fer_workers",
            "Processes that are to serve side by side.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.workers_ready = Gauge(
            "fer_workers_ready",
            "Processes that take traffic.",
            registry=registry,
            multiprocess_mode="livemostrecent",
        )

    def _declare_engine(self, registry: CollectorRegistry) -> None:
        self.engine_busy_seconds = Counter(
            "fer_engine_busy_seconds_total", "Time spent in the engine.", registry=registry
        )
        self.engines = Gauge(
            "fer_engines",
            "Engines that compute side by side.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.engine_failures = Counter(
            "fer_engine_failures_total",
            "Calls of the engine that raised or gave an unusable answer.",
            registry=registry,
        )
        self.faces = Counter(
            "fer_faces_total", "Faces answered, by emotion.", ("emotion",), registry=registry
        )
        self.confidence = Histogram(
            "fer_confidence",
            "Probability of the emotion answered, 0 to 1.",
            ("emotion",),
            buckets=_CONFIDENCE,
            registry=registry,
        )
        # A gauge, since several processes cannot share an Info.
        self.model_info = Gauge(
            "fer_model_info",
            "The model that is served.",
            ("name", "version", "device", "prior"),
            registry=registry,
            multiprocess_mode="livemax",
        )

    def describe_model(
        self, name: str, version: str, device: str, prior: str, emotions: Iterable[str]
    ) -> None:
        """Record which model is served; the counts of its emotions start at zero.

        Args:
            name: The checkpoint's name.
            version: Its version.
            device: The device that it runs on, e.g. "cpu".
            prior: The default prior's name, or "custom".
            emotions: Its labels.
        """
        self.model_info.labels(name, version, device, prior).set(1)
        for emotion in emotions:
            self.faces.labels(emotion)
            self.confidence.labels(emotion)

    def render(self, accept: str | None) -> tuple[bytes, str]:
        """Render all metrics in the format that a scrape accepts.

        Args:
            accept: The scrape's Accept header; OpenMetrics where it asks for it, else
                Prometheus' text format.

        Returns:
            The body and its content type.
        """
        # Pass on the media type only: the library parses the client's version parameter, and
        # raises if that is not a number.
        wanted = _OPENMETRICS if _OPENMETRICS in (accept or "").lower() else ""
        encode, content_type = choose_encoder(wanted)
        return encode(self._shown), content_type
