"""What the handlers of all routes share: the service, its time and its limits, the answer.

Not its duty: any one route.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pydantic_core
from starlette.requests import Request
from starlette.responses import Response

from service.errors import DeadlineExceeded, NotReady, UploadTimeout
from service.http.admission import AdmissionSlot
from service.http.api_keys import client_of
from service.http.disconnect import WhileConnected
from service.http.state import Service
from service.http.upload_memory import MemoryReservation
from service.http.uploads import read_image
from service.pictures.cost import Allowance

T = TypeVar("T")
Upload = TypeVar("Upload")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One request that was let in.

    Attributes:
        request: Its head, and where its body comes from.
        headers: Its headers, names in lower case.
        service: The running one.
        deadline: When its answer is of no more use, by the monotonic clock.
        reservation: Accounts for what is held of its body.
        client: Who asks: the same for all of a client's requests.
        slot: Its place among the requests that were let in.
    """

    request: Request
    headers: Mapping[str, str]
    service: Service
    deadline: float
    reservation: MemoryReservation
    client: Hashable
    slot: AdmissionSlot

    def allowance(self, sent_bytes: int) -> Allowance:
        """Return what the request may take of the decoders, for so many bytes of pictures."""
        return Allowance(sent_bytes, self.client, self.slot.found)


async def handle(
    request: Request,
    read: Callable[[RequestContext], Awaitable[Upload]],
    work: Callable[[RequestContext, Upload], Awaitable[T]],
) -> T:
    """Let a request in, take its body, work while its client is there: all in the time it has.

    Args:
        request: As it came; nothing of its body may have been read.
        read: Takes the body.
        work: Makes the answer of what was read. Cancelled when the client leaves.

    Returns:
        What `work` does.

    Raises:
        NotReady, ShuttingDown: The service takes no requests; as of the next two, nothing was read.
        QueueFull: It has too many already.
        Overloaded: So many that the answer would come too late.
        UploadTimeout: The time was up before the body was here.
        DeadlineExceeded: It was up afterwards.
        ClientGone: The client left.
        ServiceError: Any other kind that `read` or `work` raises.
    """
    service = service_of(request)
    if (refusal := service.refusal()) is not None:
        raise refusal
    began = time.monotonic()
    timeout_s = service.settings.timeout_s
    deadline = began + timeout_s
    headers = read_headers(request)
    client = client_of(request.scope, bool(service.settings.api_keys))
    place = service.admission.enter(deadline, client)
    received = False
    try:
        async with asyncio.timeout(timeout_s):
            with place, service.memory.reservation() as reservation:
                context = RequestContext(
                    request, headers, service, deadline, reservation, client, place
                )
                upload = await read(context)
                received = True
                service.metrics.stage["receive"].observe(time.monotonic() - began)
                place.received()
                with WhileConnected(request):
                    return await work(context, upload)
    except TimeoutError:
        if received:
            raise DeadlineExceeded("The answer did not come in time.") from None
        raise UploadTimeout("The request's body did not arrive in time.") from None


async def read_one(context: RequestContext) -> bytearray:
    """Read the one picture of a request, as `handle` wants it read."""
    limit = context.service.settings.max_image_bytes
    return await read_image(context.headers, context.request.receive, limit, context.reservation)


def service_of(request: Request) -> Service:
    """Return the running service.

    Raises:
        NotReady: It is still starting.
    """
    service: Service | None = request.app.state.service
    if service is None:
        raise NotReady("The service is starting; try again shortly.")
    return service


def read_headers(request: Request) -> dict[str, str]:
    """Return a request's headers; of one that came more than once, the first.

    A dictionary, since Starlette's own mapping walks all of them each time that one is asked for.
    """
    raw = reversed(request.scope["headers"])
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}


def json_response(body: Any) -> Response:
    """Return a 200 whose body is JSON."""
    return Response(pydantic_core.to_json(body), media_type="application/json")
