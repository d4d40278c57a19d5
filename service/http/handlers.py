"""What the handlers of all routes share: the service, the time limit, the way of an answer.

Not its duty: any one route.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pydantic_core
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from service.errors import DeadlineExceeded, NotReady, ServiceError, UploadTimeout
from service.http.state import Service


class DirectRoute(APIRoute):
    """A documented route whose endpoint takes the request and returns the response itself.

    FastAPI's own handler would resolve dependencies, spool the form to disk and validate the
    answer; none of that is wanted, and it costs more than the rest of the path.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the endpoint as it is."""
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


class Stages:
    """Times the upload, and knows which error a timeout means."""

    def __init__(self, service: Service) -> None:
        """Begin with the upload."""
        self._service = service
        self._began = time.monotonic()
        self.late: ServiceError = UploadTimeout("The request's body did not arrive in time.")

    def received(self) -> None:
        """Say that the upload is here."""
        self.late = DeadlineExceeded("The answer did not come in time.")
        seconds = time.monotonic() - self._began
        self._service.metrics.stage_seconds.labels("receive").observe(seconds)


@asynccontextmanager
async def timed(service: Service) -> AsyncIterator[Stages]:
    """Bound the enclosed block by the time that a request may take.

    Args:
        service: The running one.

    Yields:
        The request's stages; to be told once the upload is here.

    Raises:
        UploadTimeout: The time was up before the upload was here.
        DeadlineExceeded: It was up afterwards.
    """
    stages = Stages(service)
    try:
        async with asyncio.timeout(service.settings.timeout_s):
            yield stages
    except TimeoutError:
        raise stages.late from None


def service_of(request: Request) -> Service:
    """Return the running service.

    Raises:
        NotReady: It is still starting.
    """
    service: Service | None = request.app.state.service
    if service is None:
        raise NotReady("The service is starting; try again shortly.")
    return service


def json_response(body: Any) -> Response:
    """Return a 200 whose body is JSON."""
    return Response(pydantic_core.to_json(body), media_type="application/json")
