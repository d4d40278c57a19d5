"""The short way of most requests: one quick picture that is here whole, from connection to queue.

    head and body ─▶ let in ─▶ batcher ─▶ answer          (all on the event loop, nobody waits)

A task, ASGI's messages and the layers around the handlers cost as much as all else that the event
loop does for a small picture. What arrives in one piece and needs no waiting goes around them:
`POST /predict` with one plain picture, whose faces need no search. Everything else, and whatever
would be told what is wrong with it, goes the ordinary way (`service.http.request_context` and what is inside),
with the same answer: the same checks, figures, names and headers, by the same functions.

Not its duty: connections (`service.server.connections`); who is refused at the head
(`service.http.door`).
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import pydantic_core

from service.errors import ServiceError
from service.http.api_keys import ApiKeys
from service.http.disconnect import ClientGone, DisconnectSignal
from service.http.form import find_boundary
from service.http.plain_form import read_plain
from service.http.query import read_search
from service.http.request_context import CLIENT_GONE, NAME_HEADER, Headers, reject, unexpected
from service.http.request_metrics import RequestMetrics
from service.http.state import Service
from service.http.uploads import is_picture
from service.pictures.search import FaceSearch
from service.queue.backend import Cancel
from service.telemetry import request_id
from service.telemetry.metrics import Metrics

PATH = "/predict"
_PATH = PATH.encode()
# Of a request that has one, the ordinary way does more than is done here.
_UNUSUAL = frozenset((b"expect", b"transfer-encoding", b"content-encoding"))
_JSON = (b"content-type", b"application/json")

_log = logging.getLogger(__name__)


class Express:
    """Takes requests that can go the short way; on the event loop alone."""

    def __init__(
        self,
        service: Callable[[], Service | None],
        metrics: Metrics,
        request_metrics: RequestMetrics,
        keys: ApiKeys | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve what the application would.

        Args:
            service: Gives the running one, None before there is one.
            metrics: Where rejections are counted.
            request_metrics: Told of each request.
            keys: What lets a client in; None where all may ask.
            clock: Seconds, as deadlines count them.
        """
        self._service = service
        self.metrics, self.request_metrics = metrics, request_metrics
        self._keys = keys
        self.clock = clock

    @staticmethod
    def may_take(method: bytes, url: bytes) -> bool:
        """Tell from a request's first line whether it is worth to wait for its body.

        Args:
            method: As it came.
            url: As it came: the path, and a query.
        """
        return method == b"POST" and url.startswith(_PATH) and url[len(_PATH) :][:1] in (b"", b"?")

    def admit(
        self,
        url: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        departure: DisconnectSignal,
        reply: "Reply",
    ) -> "Errand | None":
        """Let a request in, if it can go this way.

        Args:
            url: Of a request that `may_take`.
            headers: Names in lower case.
            body: All of it.
            departure: When its client leaves.
            reply: Called once, unless the client leaves.

        Returns:
            The request, to be begun; None if it is to go the ordinary way: nothing was done then.
        """
        # Of a header that came more than once the first, as everywhere.
        named, service = dict(reversed(headers)), self._service()
        if service is None or service.refusal() is not None or not _UNUSUAL.isdisjoint(named):
            return None
        if self._keys is not None and not self._keys.among(headers):
            return None
        try:
            search = read_search(url[len(_PATH) + 1 :])
            image = _picture_in(body, named.get(b"content-type", b"").decode("latin-1"))
            if image is None or len(image) > service.settings.max_image_bytes:
                return None
            if not service.predictor.answers_at_once(image, search):
                return None
            return Errand(self, service, image, search, named.get(NAME_HEADER), departure, reply)
        except ServiceError:
            return None


class Errand:
    """One request on its way.

    Attributes:
        response_complete: It was answered; this and the next two uvicorn asks of every request.
        disconnected: Its client has left.
        keep_alive: Whether the connection goes on after it.
    """

    def __init__(
        self,
        express: Express,
        service: Service,
        image: bytes | bytearray,
        search: FaceSearch,
        name: bytes | None,
        departure: DisconnectSignal,
        reply: "Reply",
    ) -> None:
        """Find out that there is room and time for it.

        Raises:
            QueueFull: There is no room.
            Overloaded: It would wait too long.
        """
        self._express, self._service = express, service
        self._image, self._search, self._name = image, search, name
        self._departure, self._reply = departure, reply
        self._began = express.clock()
        self._deadline = self._began + service.settings.timeout_s
        self._place = service.admission.enter(self._deadline)
        self._reservation = service.memory.reservation()
        self._reservation.take(len(image))
        self._cancel: Cancel | None = None
        self.response_complete = self.disconnected = False
        self.keep_alive = True
        # Uvicorn sets it for whoever waits for more of a body.
        self.message_event = asyncio.Event()

    def begin(self) -> None:
        """Have it answered; that may be at once, where the picture is broken."""
        service, image = self._service, self._image
        self._image = b""  # gone as soon as it is decoded
        self._place.__enter__()
        self._departure.watchers.add(self._leave)
        service.metrics.stage["receive"].observe(self._express.clock() - self._began)
        try:
            self._place.received()
            predictor = service.predictor
            self._cancel = predictor.begin(image, self._deadline, self._search, self._resolve)
        except Exception as error:  # noqa: BLE001 - the application's edge
            self._resolve(error)

    def _resolve(self, answer: dict[str, Any] | BaseException) -> None:
        error = answer if isinstance(answer, BaseException) else None
        self._end(error)
        if error is None:
            status, headers, body = self._answer(answer)
        else:
            # The request's name is known in its own context alone, as it is in a task.
            status, headers, body = copy_context().run(self._refuse, error)
        self.response_complete = True
        self._reply(self, status, headers, body)
        self._count(status)

    def _answer(self, answer: object) -> tuple[int, Headers, bytes]:
        body = pydantic_core.to_json(answer)
        name = request_id.choose(self._name).encode()
        length = (b"content-length", str(len(body)).encode())
        return 200, (length, _JSON, (NAME_HEADER, name)), body

    def _refuse(self, error: BaseException) -> tuple[int, Headers, bytes]:
        name = request_id.begin(self._name)
        if not isinstance(error, ServiceError):
            _log.error("unexpected failure of a request", exc_info=error)
            error = unexpected()
        response = reject(error, self._express.metrics, {request_id.HEADER: name}, PATH)
        return response.status_code, response.raw_headers, bytes(response.body)

    def _leave(self) -> None:
        """Give it up: the client has left."""
        self.disconnected = True
        if self._cancel is not None:
            self._cancel()
        self._end(ClientGone())
        self._count(CLIENT_GONE)

    def _end(self, error: BaseException | None) -> None:
        """Give back what it held, as the blocks of `service.http.handlers.handle` do."""
        self._departure.watchers.discard(self._leave)
        self._cancel = None  # it knows the queue's ticket, which knows this
        kind = None if error is None else type(error)
        self._reservation.__exit__(kind, error, None)
        self._place.__exit__(kind, error, None)

    def _count(self, status: int) -> None:
        self._express.request_metrics.record(
            PATH, "POST", status, self._express.clock() - self._began
        )


Reply = Callable[[Errand, int, Headers, bytes], object]
"""Sends a request's answer: status, headers and body."""


def _picture_in(body: bytes, content_type: str) -> bytes | bytearray | None:
    """Return the picture that a body is, or has as its only part; None for all else."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return read_plain(body, find_boundary(content_type))
    return body if body and is_picture(kind) else None
