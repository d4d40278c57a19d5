"""Whether the client is still there, while the service works for it.

A server does not cancel a handler whose client has left; whoever works must watch for it.
"""

import asyncio
from types import TracebackType

from starlette.types import Receive


class ClientGone(Exception):  # noqa: N818 - an event, not a defect
    """The client left; there is nobody to answer."""


class WhileConnected:
    """Cancels the enclosed block when the client leaves, and turns that into `ClientGone`.

    The counterpart of `asyncio.timeout` for a disconnect. To be entered, on the event loop, once
    the request's body has been read: whatever the client sends after that is dropped.
    """

    def __init__(self, receive: Receive) -> None:
        """Watch `receive`, the request's ASGI channel."""
        self._receive = receive
        self._gone = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # a coroutine runs in a task
        self._task, self._cancelling = task, task.cancelling()
        self._watcher = asyncio.create_task(self._watch())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._watcher.cancel()
        # Only our own cancellation is ours to end, as in `asyncio.timeout`.
        ours = self._gone and self._task.uncancel() <= self._cancelling
        if ours and kind is asyncio.CancelledError:
            raise ClientGone from error

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._task.cancel()
