import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.serving.behaviour import run, summarise
from benchmarks.serving.open_loop import Answer, Crowd, Exchange, arrivals, request_bytes
from benchmarks.serving.pictures import Body

BODY = Body("256", False, b"abc", "image/jpeg")


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 503 Busy\r\nretry-after:2\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_an_answer_is_complete_at_its_last_byte_and_no_earlier(answer: bytes, size: int) -> None:
    reader = Answer()
    pieces = [answer[i : i + size] for i in range(0, len(answer), size)]

    complete = [reader.feed(piece) for piece in pieces]

    assert complete == [False] * (len(pieces) - 1) + [True]
    assert (reader.status, reader.retry_after, reader.keep) == (503, "2", True)


@asynccontextmanager
async def server(answer: bytes | None) -> AsyncIterator[int]:
    """Answer each request of three bytes, or never."""

    served: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.append(task)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\nabc")
                if answer is not None:
                    writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]
    await asyncio.gather(*served)


@pytest.mark.anyio
async def test_a_crowd_is_answered_and_keeps_its_connections() -> None:
    async with server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as port:
        crowd = Crowd(port, 5.0)
        for _ in range(2):
            crowd.ask(request_bytes("/predict", BODY))
            await crowd.settled()
        crowd.leave()

    assert [e.status for e in crowd.exchanges] == [200, 200]
    assert len(crowd.connections) == 1
    assert all(e.ended >= e.sent >= e.due for e in crowd.exchanges)


def test_the_loop_that_the_benchmark_runs_on_serves_a_crowd() -> None:
    async def ask() -> list[int]:
        async with server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as port:
            crowd = Crowd(port, 5.0)
            await arrivals(crowd, request_bytes("/predict", BODY), rate=1000, seconds=0.05)
            await crowd.settled()
            crowd.leave()
        return [e.status for e in crowd.exchanges]

    statuses = run(ask())

    assert len(statuses) > 20
    assert set(statuses) == {200}


@pytest.mark.anyio
async def test_who_waits_too_long_gives_up() -> None:
    async with server(None) as port:
        crowd = Crowd(port, 0.02)
        exchange = crowd.ask(request_bytes("/predict", BODY))
        await crowd.settled()

    assert (exchange.status, exchange.failure) == (0, "timeout")


@pytest.mark.anyio
async def test_where_nobody_listens_that_is_said() -> None:
    async with server(None) as port:
        pass
    crowd = Crowd(port, 1.0)
    exchange = crowd.ask(request_bytes("/predict", BODY))
    await crowd.settled()

    assert exchange.failure == "refused"


def test_an_overload_is_summed_up_without_its_first_fifth() -> None:
    exchanges = [Exchange(i / 10, i / 10, i / 10 + 0.5, 200) for i in range(50)]
    exchanges += [Exchange(i / 10, i / 10, i / 10 + 0.01, 503, "", "1") for i in range(50)]
    exchanges += [Exchange(2.0, 2.0, 14.0, 200)]  # answered when nobody wanted it any more

    found = summarise(exchanges, seconds=5.0)

    assert found["goodput_per_s"] == pytest.approx(10, rel=0.05)
    assert found["rejected_p99_ms"] == pytest.approx(10)
    assert found["accepted_p99_ms"] == pytest.approx(12_000)
    assert found["retry_after_share"] == 1
    assert found["statuses"] == {"200": 51, "503": 50}
