"""Request metrics: every request is counted and timed once, as it ends."""

import logging
from collections.abc import Collection

from prometheus_client import Counter, Histogram

from service.telemetry.metrics import OTHER, PREDICTION, Metrics

# Label values come from fixed sets, since clients can send any path and method.
UNMATCHED = "unmatched"
# CORS preflight requests of browsers: no predictions, whatever their path.
PREFLIGHT = "preflight"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})

_log = logging.getLogger(__name__)


class RequestMetrics:
    """Counts and times requests; used on the event loop only."""

    def __init__(
        self, metrics: Metrics, routes: Collection[str], predictions: Collection[str]
    ) -> None:
        """Create the recorder.

        Args:
            metrics: Records the requests.
            routes: All paths of the API; none has parameters.
            predictions: Those of them where a POST asks for a prediction.
        """
        self._metrics = metrics
        self._routes = frozenset(routes)
        self._predictions = frozenset(predictions)
        # A cache, bounded by the labels' values: the library's lookup per request is slow.
        self._figures: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def record(self, path: str, method: str, status: int, seconds: float) -> None:
        """Record one request.

        Args:
            path: As requested; may be any.
            method: As requested; may be any.
            status: Of its answer.
            seconds: Its duration.
        """
        method = method if method in _METHODS else "other"
        route = self._route(path, method)
        count, times = self._figures_of(route, method, status)
        count.inc()
        times.observe(seconds)
        # No line for each request: that would cost as much as all of this.
        level = logging.WARNING if status == 500 else logging.DEBUG
        if _log.isEnabledFor(level):
            _log.log(level, "%s %s: %d after %.1f ms", method, route, status, 1e3 * seconds)

    def _figures_of(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        key = route, method, status
        if (figures := self._figures.get(key)) is None:
            metrics = self._metrics
            kind = PREDICTION if method == "POST" and route in self._predictions else OTHER
            figures = (
                metrics.requests.labels(route, kind, method, str(status)),
                metrics.request_seconds.labels(route, kind),
            )
            self._figures[key] = figures
        return figures

    def _route(self, path: str, method: str) -> str:
        if method == "OPTIONS":
            return PREFLIGHT
        return path if path in self._routes else UNMATCHED
