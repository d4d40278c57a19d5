"""Tests of `service.server.transport`: when a connection that was closed really ends."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from service.server.connections import LAST_REQUEST_S, ConnectionLimits
from service.server.transport import LINGER_S, MAX_LINGER_BYTES, LingeringTransport
from tests.service.server.test_connections import PATIENT, answer, ended, listening
from tests.waiting import until

LARGE = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 90000000\r\n\r\n"


class Wire:
    """A transport that notes what is done with it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.done.append(" ".join((name, *map(str, arguments))))

    def is_closing(self) -> bool:
        return bool({"close", "abort"} & set(self.done))


class Clock:
    """An event loop's timers, due when the test says so."""

    def __init__(self) -> None:
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def call_soon(self, call: Callable[[], None]) -> "Clock":
        return self.call_later(0, call)

    def call_later(self, seconds: float, call: Callable[[], None]) -> "Clock":
        self.timers.append((seconds, call))
        return self

    def cancel(self) -> None:
        self.timers.pop()


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def around(wire: Wire, clock: Clock, receiving: bool = True) -> LingeringTransport:
    return LingeringTransport(cast(Any, wire), cast(Any, clock), lambda: receiving)


def test_who_has_sent_all_is_closed_at_once(wire: Wire, clock: Clock) -> None:
    transport = around(wire, clock, receiving=False)
    transport.close()
    assert (wire.done, clock.timers) == (["close"], [])
    assert transport.is_closing()
    assert not transport.lingering


def test_who_still_sends_is_read_for_a_while(wire: Wire, clock: Clock) -> None:
    transport = around(wire, clock)
    transport.close()
    transport.close()
    assert wire.done == ["write_eof", "resume_reading"]
    assert transport.is_closing()
    [(seconds, call)] = clock.timers
    assert seconds == LINGER_S
    call()
    assert wire.done[-1] == "abort"


def test_what_is_written_in_one_turn_is_sent_together(wire: Wire, clock: Clock) -> None:
    transport = around(wire, clock)
    transport.write(b"head, ")
    transport.write(b"body")
    assert not wire.done
    ((seconds, call),) = clock.timers
    call()
    assert (seconds, wire.done) == (0, ["write b'head, body'"])


@pytest.mark.parametrize("receiving", [False, True])
def test_what_was_written_is_sent_before_the_end(wire: Wire, clock: Clock, receiving: bool) -> None:
    transport = around(wire, clock, receiving)
    transport.write(b"answer")
    transport.close()
    transport.write(b"too late")
    for _, call in clock.timers[:]:
        call()
    assert wire.done[:2] == ["write b'answer'", "write_eof" if receiving else "close"]
    assert "write b'too late'" not in wire.done


def test_nothing_is_sent_after_an_abort(wire: Wire, clock: Clock) -> None:
    transport = around(wire, clock)
    transport.write(b"answer")
    transport.abort()
    clock.timers[0][1]()
    assert wire.done == ["abort"]


def test_who_sends_too_much_is_cut_off(wire: Wire, clock: Clock) -> None:
    transport = around(wire, clock)
    transport.close()
    transport.discard(bytes(MAX_LINGER_BYTES))
    assert "abort" not in wire.done
    transport.discard(b"x")
    assert wire.done[-1] == "abort"


def test_lingering_can_be_cut_short(wire: Wire, clock: Clock) -> None:
    transport = around(wire, clock)
    transport.limit_linger(1.0)
    assert clock.timers == []
    transport.close()
    transport.limit_linger(1.0)
    assert [seconds for seconds, _ in clock.timers] == [1.0]
    transport.cancel_timer()
    assert clock.timers == []


def test_reading_is_held_whoever_resumes_it(wire: Wire, clock: Clock) -> None:
    transport = around(wire, clock)
    transport.hold(True)
    transport.hold(True)
    assert wire.done == ["pause_reading"]
    transport.resume_reading()
    assert wire.done[-1] == "pause_reading"
    transport.hold(False)
    assert wire.done[-1] == "resume_reading"
    transport.pause_reading()
    transport.hold(True)
    transport.hold(False)
    assert wire.done[-1] == "pause_reading"


@pytest.mark.anyio
async def test_a_shutdown_does_not_wait_for_who_goes_on_sending() -> None:
    async with listening(PATIENT) as server:
        reader, writer = await server.connect()
        writer.write(LARGE)
        assert (await answer(reader))[0] == 413
        (connection,) = server.state.connections
        began = asyncio.get_running_loop().time()
        connection.shutdown()
        await until(lambda: not server.state.connections)
        assert asyncio.get_running_loop().time() - began >= 0.9 * LAST_REQUEST_S
        writer.close()


@pytest.mark.anyio
async def test_of_connections_above_the_limit_few_linger() -> None:
    async with listening(ConnectionLimits(1, 30.0)) as server:
        first = await server.connect()
        readers = []
        for _ in range(60):
            reader, writer = await server.connect()
            readers.append((reader, writer))
        await until(lambda: server.sample("fer_connections_dropped_total", reason="limit") >= 60)
        await until(lambda: len(server.state.connections) <= 40)
        for reader, writer in readers:
            assert (await answer(reader))[0] == 503
            assert await ended(reader) == b""
            writer.close()
        first[1].close()


@pytest.mark.anyio
async def test_what_the_system_has_and_nobody_read_is_known() -> None:
    async with listening(PATIENT) as server:
        _, writer = await server.connect()
        await until(lambda: server.state.connections)
        (connection,) = server.state.connections
        transport = connection.transport
        assert isinstance(transport, LingeringTransport)
        assert not transport.has_unread()
        transport.hold(True)
        writer.write(b"x")
        await until(lambda: transport.has_unread())
        writer.close()
