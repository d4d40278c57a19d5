"""Early rejection: a request that cannot be answered in time is refused at its head.

While three times as much is asked as can be answered, two of three requests are refused, on the
cores that the others need: the way through all middleware to a handler, and back as an exception,
costs more than this. A request that would get another answer there, or other headers, is passed on.
"""

import time
from collections.abc import Callable, Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ServiceError
from service.http.api_keys import ApiKeys, client_of
from service.http.request_context import is_skipped, reject
from service.http.state import Service
from service.telemetry.metrics import Metrics


class EarlyRejection:
    """ASGI middleware, outside of all that a refused request does not need."""

    def __init__(
        self,
        app: ASGIApp,
        service: Callable[[], Service | None],
        paths: Collection[str],
        metrics: Metrics,
        keys: ApiKeys | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Surround `app`.

        Args:
            app: What answers the others.
            service: Gives the running one, None before there is one.
            paths: What is posted to one of these is work.
            metrics: Where rejections are counted.
            keys: Only a client with one of them learns how busy the service is; None where all may.
            clock: Seconds, as deadlines count them.
        """
        self._app, self._service = app, service
        self._paths = frozenset(paths)
        self._metrics, self._keys = metrics, keys
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse one request, or pass it on; nothing of its body is read here."""
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
        client = client_of(scope, self._keys is not None)
        deadline = self._clock() + service.settings.timeout_s
        refusal = service.admission.refusal(deadline, client)
        if refusal is None or service.refusal() is not None or not self._applies(scope):
            return None
        return refusal

    def _applies(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        if b"origin" in headers:  # a page may read the answer with the headers of CORS alone
            return False
        if self._keys is not None and not self._keys.among(scope["headers"]):
            return False
        return is_skipped(headers, 503)
