"""From a request's path straight to the endpoint that answers it.

The router tries the pattern of each route in turn, inside of layers for dependencies that no
endpoint here has: 0.08 CPU ms a request. Not its duty: paths and methods that there are not; those
go on to the router, which knows what to say of them.
"""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http.handlers import DirectRoute

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


class Dispatch:
    """ASGI middleware, the innermost: answers where one of the `DirectRoute`s would."""

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        """Surround the router.

        Args:
            app: The router.
            routes: All that it has.
        """
        self._app = app
        self._endpoints: dict[tuple[str, str], Endpoint] = {
            (method, route.path): route.endpoint
            for route in routes
            if isinstance(route, DirectRoute)
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; anything but HTTP passes through."""
        endpoint = scope["type"] == "http" and self._endpoints.get((scope["method"], scope["path"]))
        if not endpoint:
            await self._app(scope, receive, send)
            return
        response = await endpoint(Request(scope, receive))
        await response(scope, receive, send)
