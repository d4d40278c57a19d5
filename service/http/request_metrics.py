"""Request metrics: every request is counted and timed once, as it ends.

Not its duty: noticing them (`service.http.request_context`), or declaring the metrics.
"""

import logging
from collections.abc import Collection

from prometheus_client import Counter, Histogram

from service.telemetry.metrics import Metrics

# Label values come from fixed sets: a client can invent paths and methods.
UNMATCHED = "unmatched"
# What browsers ask before a page of another origin may: no prediction, whatever its path.
PREFLIGHT = "preflight"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})

_log = logging.getLogger(__name__)


class RequestMetrics:
    """Counts and times requests; on the event loop alone."""

    def __init__(self, metrics: Metrics, routes: Collection[str]) -> None:
        """Count nothing yet.

        Args:
            metrics: Where to record.
            routes: The paths that exist, none with parameters.
        """
        self._metrics = metrics
        self._routes = frozenset(routes)
        # As many as the labels have values: what looks them up for each request is not cheap.
        self._figures: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def record(self, path: str, method: str, status: int, seconds: float) -> None:
        """Record one request.

        Args:
            path: What was asked for; anything.
            method: Likewise.
            status: Of its answer.
            seconds: What it took.
        """
        method = method if method in _METHODS else "other"
        route = self._route(path, method)
        count, times = self._figures_of(route, method, status)
        count.inc()
        times.observe(seconds)
        # A line for each request would cost as much as all of this; metrics tell the rest.
        level = logging.WARNING if status == 500 else logging.DEBUG
        if _log.isEnabledFor(level):
            _log.log(level, "%s %s: %d after %.1f ms", method, route, status, 1e3 * seconds)

    def _figures_of(self, route: str, method: str, status: int) -> tuple[Counter, Histogram]:
        key = route, method, status
        if (figures := self._figures.get(key)) is None:
            metrics = self._metrics
            figures = (
                metrics.requests.labels(route, method, str(status)),
                metrics.request_seconds.labels(route),
            )
            self._figures[key] = figures
        return figures

    def _route(self, path: str, method: str) -> str:
        if method == "OPTIONS":
            return PREFLIGHT
        return path if path in self._routes else UNMATCHED
