"""Whether the client is still there, while the service works for it.

A server does not cancel a handler whose client has left; whoever works must watch for it.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType

from starlette.requests import Request

DISCONNECT_SIGNAL = "disconnect_signal"
"""Under `state` of a request's scope: its connection's `DisconnectSignal`, if there is one."""


class ClientGone(Exception):  # noqa: N818 - an event, not a defect
    """The client left; there is nobody to answer."""


class DisconnectSignal:
    """When a connection's client leaves; on the event loop alone.

    Our own server has one for each connection. A task that waits in `receive`, as it takes with any
    other server, costs a request 0.06 CPU ms more.

    Attributes:
        is_set: It has left.
        watchers: Called as it leaves.
    """

    def __init__(self) -> None:
        """The client is there."""
        self.is_set = False
        self.watchers: set[Callable[[], None]] = set()

    def set(self) -> None:
        """Say that the client has left."""
        self.is_set = True
        for watcher in tuple(self.watchers):
            watcher()


class WhileConnected:
    """Cancels the enclosed block when the client leaves, and turns that into `ClientGone`.

    The counterpart of `asyncio.timeout` for a disconnect. To be entered, on the event loop, once
    the request's body has been read: whatever the client sends after that is dropped.
    """

    def __init__(self, request: Request) -> None:
        """Watch for the client of `request`."""
        self._request = request
        self._gone = False
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
            raise ClientGone
        else:
            self._signal.watchers.add(self._leave)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._signal is not None:
            self._signal.watchers.discard(self._leave)
        elif self._watching is not None:
            self._watching.cancel()
        # Only our own cancellation is ours to end, as in `asyncio.timeout`.
        ours = self._gone and self._task.uncancel() <= self._cancelling
        if ours and kind is asyncio.CancelledError:
            raise ClientGone from error

    def _leave(self) -> None:
        self._gone = True
        self._task.cancel()

    async def _watch(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self._leave()
