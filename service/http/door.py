"""Who is refused before the application hears of it, because there is no time for anybody more.

While three times as much is asked as can be answered, two of three requests are refused, on the
cores that the others need. The application's way to say so, through its middleware to a handler
and back as an exception, takes twice the time that this does, and a tenth more is answered in
time. Whoever would hear something else of the application, or with other headers, is left to it.

Not its duty: deciding (`service.http.admission`), connections (`service.server.connections`).
"""

import time
from collections.abc import Callable, Iterable
from contextvars import copy_context

from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from service.errors import ServiceError
from service.http.api_keys import ApiKeys
from service.http.problems import problem_bytes
from service.http.request_context import Headers, is_skipped, offered_name
from service.http.request_metrics import RequestMetrics
from service.http.state import Service
from service.telemetry import request_id
from service.telemetry.metrics import Metrics

# A page of another origin may read an answer with further headers alone.
_ORIGIN = b"origin"


class Door:
    """Asked at each request's head; on the event loop alone."""

    def __init__(
        self,
        service: Callable[[], Service | None],
        routes: Iterable[BaseRoute],
        metrics: Metrics,
        request_metrics: RequestMetrics,
        keys: ApiKeys | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Guard a service.

        Args:
            service: Gives the running one, None before there is one.
            routes: Those of the application; what is posted to any `APIRoute` is work.
            metrics: Where rejections are counted.
            request_metrics: Told of each request that is refused here.
            keys: What others than their holders are not told; None where all may ask.
            clock: Seconds, as deadlines count them.
        """
        self._service = service
        self._paths = {
            route.path.encode(): route.path
            for route in routes
            if isinstance(route, APIRoute) and "POST" in (route.methods or ())
        }
        self._metrics, self._request_metrics, self._keys = metrics, request_metrics, keys
        self._clock = clock

    def refuse(self, method: bytes, url: bytes, headers: list[tuple[bytes, bytes]]) -> bytes | None:
        """Return the whole answer to a request that cannot be let in; None if it may go on.

        Args:
            method: As it came.
            url: As it came: the path, and a query.
            headers: Names in lower case.
        """
        if method != b"POST" or (path := self._paths.get(url.partition(b"?")[0])) is None:
            return None
        began, service = self._clock(), self._service()
        if service is None:
            return None
        refusal = service.admission.refusal(began + service.settings.timeout_s)
        if refusal is None or service.refusal() is not None or not self._speaks_to(headers):
            return None
        # The request's name is known in its own context alone, as it is in a task.
        return copy_context().run(self._answer, refusal, path, headers, began)

    def _speaks_to(self, headers: list[tuple[bytes, bytes]]) -> bool:
        named = dict(headers)
        if _ORIGIN in named or (self._keys is not None and not self._keys.among(headers)):
            return False
        return is_skipped(named, 503)

    def _answer(self, refusal: ServiceError, path: str, headers: Headers, began: float) -> bytes:
        name = request_id.begin(offered_name(headers))
        answer = problem_bytes(refusal, {request_id.HEADER: name}, path)
        self._metrics.rejections.labels(refusal.code).inc()
        self._request_metrics.record(path, "POST", refusal.status, self._clock() - began)
        return answer
