"""Tests of `service.server.balancer`: who of several takes a connection."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.server.balancer import ConnectionBalancer
from service.server.registry import WorkerRegistry, WorkerSlot
from service.server.sockets import bind, listen
from tests.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}  # as the service runs


class Worker:
    """An balancer and the connections that it took."""

    def __init__(self, workers: WorkerRegistry, slot: int, listener: socket.socket) -> None:
        self.transports: set[asyncio.Transport] = set()
        self.worker_slot = WorkerSlot(workers, slot)
        self.listener: Any = socket.socket(fileno=os.dup(listener.fileno()))
        self.listen_with(self.listener)

    def listen_with(self, listener: Any) -> None:
        """Have a new balancer take connections from this: the socket, or what stands for it."""
        self.balancer = ConnectionBalancer(listener, self.worker_slot, self._protocol)

    def _protocol(self) -> asyncio.Protocol:
        worker = self

        class Kept(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = transport
                worker.transports.add(transport)  # type: ignore[arg-type]
                worker.balancer.update(len(worker.transports))

            def connection_lost(self, _: Exception | None) -> None:
                worker.transports.discard(self.transport)
                worker.balancer.update(len(worker.transports))

        return Kept()


class Workplace:
    """A listener, and workers around it."""

    def __init__(self, listener: socket.socket, folder: Path) -> None:
        self.registry = WorkerRegistry(folder, 2)
        self.workers = [Worker(self.registry, slot, listener) for slot in self.registry.slots]
        self.address = listener.getsockname()
        self.clients: list[socket.socket] = []

    @property
    def counts(self) -> list[int]:
        return [len(worker.transports) for worker in self.workers]

    async def connect(self, count: int) -> None:
        """Connect so many clients, one after the other."""
        for total in range(sum(self.counts) + 1, sum(self.counts) + 1 + count):
            self.clients.append(socket.create_connection(self.address))
            await until(partial(self._has, total))

    def _has(self, total: int) -> bool:
        return sum(self.counts) == total


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Workplace]:
    with bind("127.0.0.1", 0) as listener:
        listen(listener)
        place = Workplace(listener, tmp_path)
        yield place
        for client in place.clients:
            client.close()
        for worker in place.workers:
            worker.listener.close()  # of one that never began
            for transport in tuple(worker.transports):
                transport.abort()
        await until(lambda: sum(place.counts) == 0)


async def test_each_has_as_many(place: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.server.balancer.DEFER_S", 3600.0)
    for worker in place.workers:
        place.registry.report(worker.worker_slot.slot, True)
        worker.balancer.start()
    await place.connect(8)
    assert place.counts == [4, 4]
    for transport in tuple(place.workers[0].transports):
        transport.abort()
    await until(lambda: place.counts == [0, 4])
    await place.connect(4)
    assert place.counts == [4, 4]
    for worker in place.workers:
        await worker.balancer.close()


async def test_who_is_not_well_is_not_waited_for(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.server.balancer.DEFER_S", 3600.0)
    place.registry.report(0, True)
    place.registry.report(1, False)
    place.workers[0].balancer.start()
    await place.connect(5)
    assert place.counts == [5, 0]
    await place.workers[0].balancer.close()


async def test_who_is_not_well_leaves_them_to_others(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.server.balancer.DEFER_S", 3600.0)
    place.registry.report(0, False)
    place.registry.report(1, True)
    for worker in place.workers:
        worker.balancer.start()
    await place.connect(5)
    assert place.counts == [0, 5]
    for worker in place.workers:
        await worker.balancer.close()


async def test_who_seems_well_and_takes_none_is_not_waited_for_long(place: Workplace) -> None:
    place.registry.report(0, True)
    place.registry.report(1, True)
    place.workers[0].balancer.start()
    await place.connect(5)
    assert place.counts == [5, 0]
    await place.workers[0].balancer.close()


async def test_who_closes_serves_what_it_took_and_leaves_the_rest(place: Workplace) -> None:
    first, second = place.workers
    place.registry.report(0, True)
    first.balancer.start()
    place.clients.append(socket.create_connection(place.address))
    await until(lambda: place.registry.get_connections(0))
    await first.balancer.close()
    assert place.counts == [1, 0]
    place.clients.append(socket.create_connection(place.address))
    second.balancer.start()
    await until(lambda: place.counts == [1, 1])
    await second.balancer.close()


async def test_what_cannot_be_opened_counts_no_longer(
    place: Workplace, caplog: pytest.LogCaptureFixture
) -> None:
    place.registry.report(0, True)
    first = place.workers[0]
    listener = first.listener
    taken: list[socket.socket] = []

    class Broken:
        def accept(self) -> tuple[socket.socket, object]:
            connection, address = listener.accept()
            if not taken:
                connection.close()
            taken.append(connection)
            return connection, address

        def __getattr__(self, name: str) -> object:
            return getattr(listener, name)

    first.listen_with(Broken())
    first.balancer.start()
    place.clients.append(socket.create_connection(place.address))
    await until(lambda: "a connection could not be opened" in caplog.text)
    assert place.registry.get_connections(0) == 0
    await place.connect(1)
    assert place.counts == [1, 0]
    assert place.registry.get_connections(0) == 1
    await first.balancer.close()


async def test_without_descriptors_it_goes_on_later(
    place: Workplace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("service.server.balancer.EXHAUSTED_PAUSE_S", 0.01)
    first = place.workers[0]
    listener, refusals = first.listener, [errno.EMFILE, errno.ENFILE]

    class Exhausted:
        def accept(self) -> object:
            if refusals:
                raise OSError(refusals.pop(), "Too many open files")
            return listener.accept()

        def fileno(self) -> int:
            return listener.fileno()

        def __getattr__(self, name: str) -> object:
            return getattr(listener, name)

    first.listen_with(Exhausted())
    first.balancer.start()
    await place.connect(1)
    assert place.counts == [1, 0]
    assert caplog.text.count("no connection can be accepted at present: Too many open files") == 2
    await first.balancer.close()
