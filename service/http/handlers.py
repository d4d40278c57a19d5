"""Shared by the handlers of all routes: admission, deadline, disconnects, the response."""

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
from service.http.api_keys import identify_client
from service.http.disconnect import WhileConnected
from service.http.state import Service
from service.http.upload_memory import MemoryReservation
from service.http.uploads import read_image
from service.pictures.cost import Allowance

T = TypeVar("T")
Upload = TypeVar("Upload")


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One admitted request.

    Attributes:
        request: Starlette's request.
        headers: Its headers, names in lower case.
        service: The running service.
        deadline: When its answer is of no use any more, by the monotonic clock.
        reservation: Accounts for the memory of its body.
        client: Identifies the client: equal for all of its requests.
        slot: Its admission.
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
    """Admit a request, read its body and compute its answer, within its deadline.

    Args:
        request: Its body must not have been read.
        read: Reads the body.
        work: Computes the answer. It is cancelled when the client disconnects.

    Returns:
        The result of `work`.

    Raises:
        NotReady, ShuttingDown: The service takes no requests; the body was not read.
        QueueFull: Too many requests are admitted; the body was not read.
        Overloaded: The answer would come too late; the body was not read.
        UploadTimeout: The deadline passed before the body was received.
        DeadlineExceeded: The deadline passed afterwards.
        ClientDisconnected: The client disconnected.
        ServiceError: As `read` or `work` raises.
    """
    service = get_service(request)
    if (refusal := service.refusal()) is not None:
        raise refusal
    began = time.monotonic()
    timeout_s = service.settings.timeout_s
    deadline = began + timeout_s
    headers = read_headers(request)
    client = identify_client(request.scope, bool(service.settings.api_keys))
    slot = service.admission.enter(deadline, client)
    received = False
    try:
        async with asyncio.timeout(timeout_s):
            with slot, service.memory.reservation() as reservation:
                context = RequestContext(
                    request, headers, service, deadline, reservation, client, slot
                )
                upload = await read(context)
                received = True
                service.metrics.stage["receive"].observe(time.monotonic() - began)
                slot.received()
                with WhileConnected(request):
                    return await work(context, upload)
    except TimeoutError:
        if received:
            raise DeadlineExceeded("The answer did not come in time.") from None
        raise UploadTimeout("The request's body did not arrive in time.") from None


async def read_one(context: RequestContext) -> bytearray:
    """Read the picture of a request; the argument `read` of `handle`."""
    limit = context.service.settings.max_image_bytes
    return await read_image(context.headers, context.request.receive, limit, context.reservation)


def get_service(request: Request) -> Service:
    """Return the running service.

    Raises:
        NotReady: It is still starting.
    """
    service: Service | None = request.app.state.service
    if service is None:
        raise NotReady("The service is starting; try again shortly.")
    return service


def read_headers(request: Request) -> dict[str, str]:
    """Return a request's headers; the first value of a repeated header.

    A dictionary, since Starlette's mapping searches the whole list at each access.
    """
    raw = reversed(request.scope["headers"])
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}


def json_response(body: Any) -> Response:
    """Return a response of status 200 with a JSON body."""
    return Response(pydantic_core.to_json(body), media_type="application/json")
