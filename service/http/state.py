"""The running service: the parts that the routes use, and its readiness."""

import time
from dataclasses import dataclass
from typing import Protocol

from service.config import Settings
from service.drawing.explainer import Explainer
from service.engine.contract import EngineInfo
from service.errors import NotReady, ServiceError, ShuttingDown
from service.http.admission import Admission
from service.http.upload_memory import UploadMemory
from service.pictures.pool import DecodePool
from service.pipeline import Predictor
from service.queue.backend import InferenceBackend
from service.telemetry.metrics import Metrics


class Peers(Protocol):
    """The other workers of the service."""

    def report(self, healthy: bool) -> None:
        """Report that this worker runs, and whether it is healthy."""

    def any_unhealthy(self) -> bool:
        """Return whether a running worker is unhealthy."""

    def count_healthy(self) -> int:
        """Return how many workers are healthy."""


@dataclass
class Service:
    """The parts of the running service; used on the event loop only.

    Attributes:
        settings: The operator's.
        metrics: All metrics.
        about: Describes the engine.
        batcher: The inference backend; here only for its health.
        pool: The decoders; here only for their health.
        predictor: Classifies pictures.
        explainer: Explains pictures.
        admission: Admits requests.
        memory: Bounds the memory of all uploads.
        peers: The other workers; None with a single worker.
        drain_by: When the service ends at the latest, by the monotonic clock; None until it shuts
            down.
    """

    settings: Settings
    metrics: Metrics
    about: EngineInfo
    batcher: InferenceBackend
    pool: DecodePool
    predictor: Predictor
    explainer: Explainer
    admission: Admission
    memory: UploadMemory
    peers: Peers | None = None
    drain_by: float | None = None

    def describe(self) -> str:
        """Return model, version and device, for the log."""
        manifest = self.about.manifest
        return f"{manifest.name} {manifest.version} on {self.about.device}"

    def begin_drain(self) -> None:
        """Turn readiness off, and set the end of the drain; later calls have no effect."""
        if self.drain_by is None:
            self.drain_by = time.monotonic() + self.settings.drain_s
        self.check()

    def check(self) -> ServiceError | None:
        """Return why the service takes no traffic; None if it does.

        With several workers, all running ones must be healthy; one that is being replaced does not
        count. The result is reported to metrics and to the other workers.
        """
        error = self._own_error()
        healthy = int(error is None)
        if self.peers is not None:
            self.peers.report(error is None)
            if error is None and self.peers.any_unhealthy():
                error = NotReady("A worker does not answer; the service waits for it.")
            healthy = self.peers.count_healthy()
        self.metrics.ready.set(error is None)
        self.metrics.workers.set(self.settings.workers or 1)
        self.metrics.workers_ready.set(healthy)
        return error

    def _own_error(self) -> ServiceError | None:
        if self.drain_by is not None:
            return ShuttingDown("The service is shutting down; ask another instance.")
        return self.refusal()

    def refusal(self) -> ServiceError | None:
        """Return why no request can be answered at present; None if one can.

        During the drain requests on open connections are still answered.
        """
        if not self.batcher.healthy:
            return NotReady("The network does not answer; the service waits for it.")
        if not self.pool.healthy:
            return NotReady("The decoder does not answer; the service waits for it.")
        return None
