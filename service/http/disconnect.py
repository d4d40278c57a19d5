"""Detects a client's disconnect while the service works on its request.

ASGI servers do not cancel a handler whose client has disconnected, so the handler must detect it.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType

from starlette.requests import Request

DISCONNECT_SIGNAL = "disconnect_signal"
"""Under `state` of a request's scope: its connection's `DisconnectSignal`, if there is one."""


class ClientDisconnected(Exception):  # noqa: N818 - an event, not a defect
    """The client disconnected; no answer is needed."""


class DisconnectSignal:
    """The disconnect of a connection's client; used on the event loop only.

    Our server provides one for each connection. With other servers a task must wait in `receive`,
    which costs 0.06 CPU ms more per request.

    Attributes:
        is_set: The client has disconnected.
        watchers: Called at the disconnect.
    """

    def __init__(self) -> None:
        """Start with a connected client."""
        self.is_set = False
        self.watchers: set[Callable[[], None]] = set()

    def set(self) -> None:
        """Signal the disconnect."""
        self.is_set = True
        for watcher in tuple(self.watchers):
            watcher()


class WhileConnected:
    """Cancels the enclosed block when the client disconnects, and raises `ClientDisconnected` then.

    It works like `asyncio.timeout`. Enter it on the event loop, after the request's body has been
    read: later data from the client is dropped.
    """

    def __init__(self, request: Request) -> None:
        """Prepare for the client of `request`."""
        self._request = request
        self._disconnected = False
        self._watching: asyncio.Task[None] | None = None
        self._signal: DisconnectSignal | None = request.scope.get("state", {}).get(
            DISCONNECT_SIGNAL
        )

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in a task
        self._task, self._cancelling = task, task.cancelling()
        if self._signal is None:
            self._watching = asyncio.create_task(self._watch())
        elif self._signal.is_set:
            raise ClientDisconnected
        else:
            self._signal.watchers.add(self._cancel)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._signal is not None:
            self._signal.watchers.discard(self._cancel)
        elif self._watching is not None:
            self._watching.cancel()
        # Handle only the cancellation that was requested here, as `asyncio.timeout` does.
        ours = self._disconnected and self._task.uncancel() <= self._cancelling
        if ours and kind is asyncio.CancelledError:
            raise ClientDisconnected from error

    def _cancel(self) -> None:
        self._disconnected = True
        self._task.cancel()

    async def _watch(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self._cancel()
