"""Early rejection: a request that cannot be answered in time is refused at its head.

At three times the capacity two of three requests are refused, on the cores that the others need.
Refusing them here costs less than passing them through all middleware to a handler, and an
exception back. A request that would get another answer or other headers there is passed on.
"""

import time
from collections.abc import Callable, Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ServiceError
from service.http.api_keys import ApiKeys, identify_client
from service.http.request_context import can_skip_body, reject
from service.http.state import Service
from service.telemetry.metrics import Metrics


class EarlyRejection:
    """ASGI middleware, outside of all middleware that a refused request does not need."""

    def __init__(
        self,
        app: ASGIApp,
        service: Callable[[], Service | None],
        paths: Collection[str],
        metrics: Metrics,
        keys: ApiKeys | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wrap `app`.

        Args:
            app: The inner application.
            service: Returns the running service, None before the start.
            paths: The paths whose POST requests need admission.
            metrics: Counts the rejections.
            keys: Only a client with a valid key may see the load; None if no key is required.
            clock: Seconds, in the time of the deadlines.
        """
        self._app, self._service = app, service
        self._paths = frozenset(paths)
        self._metrics, self._keys = metrics, keys
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on; its body is not read here."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
            return
        response = reject(refusal, self._metrics, path=scope["path"])
        await response(scope, receive, send)

    def _refusal(self, scope: Scope) -> ServiceError | None:
        if scope["method"] != "POST" or scope["path"] not in self._paths:
            return None
        service = self._service()
        if service is None:
            return None
        client = identify_client(scope, self._keys is not None)
        deadline = self._clock() + service.settings.timeout_s
        refusal = service.admission.refusal(deadline, client)
        if refusal is None or service.refusal() is not None or not self._applies(scope):
            return None
        return refusal

    def _applies(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        if b"origin" in headers:  # the answer needs the headers of the CORS middleware
            return False
        if self._keys is not None and not self._keys.authorise(scope["headers"]):
            return False
        return can_skip_body(headers, 503)
