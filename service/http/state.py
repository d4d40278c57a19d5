"""What the routes use while the service runs, and whether it takes traffic.

Not its duty: HTTP (`service.http.routes`), starting and stopping (`service.app`).
"""

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
    """The workers of one service, as one of them sees them."""

    def report(self, healthy: bool) -> None:
        """Say that this worker lives, and whether it takes traffic."""

    def any_unhealthy(self) -> bool:
        """Tell whether a worker lives and takes no traffic."""

    def count_healthy(self) -> int:
        """Return how many workers take traffic."""


@dataclass
class Service:
    """The parts; made at start-up, and on the event loop alone.

    Attributes:
        settings: The operator's.
        metrics: All of them.
        about: The engine, as it introduces itself.
        batcher: Asked for its health alone.
        pool: Likewise.
        predictor: Does the work.
        explainer: Does it where reasons are wanted too.
        admission: Who is let in.
        memory: Bounds what all uploads hold.
        peers: The workers beside this one; None where there are none.
        drain_by: When the service ends at the latest, by the monotonic clock; None until it is on
            its way out.
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
        """Turn readiness off, and start the clock of the drain; the first call counts."""
        if self.drain_by is None:
            self.drain_by = time.monotonic() + self.settings.drain_s
        self.check()

    def check(self) -> ServiceError | None:
        """Say why the service takes no traffic; None if it does.

        Of several workers all that live must be well; the others do while one is replaced.
        Metrics and workers are told what was found.
        """
        error = self._own_error()
        healthy = int(error is None)
        if self.peers is not None:
            self.peers.report(error is None)
            if error is None and self.peers.any_unhealthy():
                error = NotReady("A worker does not answer; the service waits for it.")
            healthy = self.peers.count_healthy()
        self.metrics.ready.set(error is None)
        self.metrics.workers.set(self.settings.workers)
        self.metrics.workers_ready.set(healthy)
        return error

    def _own_error(self) -> ServiceError | None:
        if self.drain_by is not None:
            return ShuttingDown("The service is shutting down; ask another instance.")
        return self.refusal()

    def refusal(self) -> ServiceError | None:
        """Say why no request can be answered at present; None if one can.

        On the way out requests are: who had connected before is answered.
        """
        if not self.batcher.healthy:
            return NotReady("The network does not answer; the service waits for it.")
        if not self.pool.healthy:
            return NotReady("The decoder does not answer; the service waits for it.")
        return None
