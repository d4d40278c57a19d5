"""Tests of `service.http.disconnect`: who leaves ends the work, and nothing else does."""

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from service.http.disconnect import (
    DISCONNECT_SIGNAL,
    ClientDisconnected,
    DisconnectSignal,
    WhileConnected,
)

pytestmark = pytest.mark.anyio


class Client:
    """A client of a server that tells of signals, or of one that does not."""

    def __init__(self, told: bool) -> None:
        self.signal = DisconnectSignal()
        self._messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        state = {DISCONNECT_SIGNAL: self.signal} if told else {}
        self.request = Request({"type": "http", "state": state}, self._messages.get)

    def leave(self) -> None:
        self._messages.put_nowait({"type": "http.request"})  # a stray piece of a body
        self._messages.put_nowait({"type": "http.disconnect"})
        self.signal.set()


@pytest.fixture(params=[True, False], ids=["told", "watched"])
def client(request: pytest.FixtureRequest) -> Client:
    return Client(request.param)


async def test_who_stays_is_not_disturbed(client: Client) -> None:
    with WhileConnected(client.request):
        await asyncio.sleep(0)
    assert client.signal.watchers == set()


async def test_who_leaves_ends_the_work(client: Client) -> None:
    async def work() -> None:
        with WhileConnected(client.request):
            client.leave()
            await asyncio.Event().wait()

    with pytest.raises(ClientDisconnected):
        await work()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert client.signal.watchers == set()


async def test_who_had_left_before_gets_nothing(client: Client) -> None:
    client.leave()
    with pytest.raises(ClientDisconnected), WhileConnected(client.request):
        await asyncio.Event().wait()


async def test_who_leaves_afterwards_ends_nothing(client: Client) -> None:
    with WhileConnected(client.request):
        await asyncio.sleep(0)
    client.leave()
    await asyncio.sleep(0)


async def test_an_error_of_the_work_is_its_own(client: Client) -> None:
    with pytest.raises(ZeroDivisionError), WhileConnected(client.request):
        raise ZeroDivisionError


async def test_a_cancellation_by_others_stays_one(client: Client) -> None:
    async def work() -> None:
        with WhileConnected(client.request):
            begun.set()
            await asyncio.Event().wait()

    begun = asyncio.Event()
    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
