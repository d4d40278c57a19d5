"""Both clients against servers that answer before they have read the request."""

import asyncio
import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from service.client import AsyncClient, Client, Failure

BODY = json.dumps({"code": "too_large", "detail": "Send a smaller one."}).encode()
LENGTH = f"content-length: {len(BODY)}\r\n"
SIZES = (1_000, 1_000_000, 20_000_000)
Predict = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def predict(request: pytest.FixtureRequest) -> Predict:
    async def ask(url: str, content: bytes) -> Any:
        async with AsyncClient(url, sleep=wait_no_time) as client:
            return await client.predict(content)

    def run(url: str, content: bytes) -> Any:
        if request.param == "async":
            return asyncio.run(ask(url, content))
        with Client(url, sleep=lambda _: None) as client:
            return client.predict(content)

    return run


async def wait_no_time(_: float) -> None:
    pass


def after_the_head(connection: socket.socket, answer: bytes) -> None:
    while not connection.recv(1 << 16, socket.MSG_PEEK).count(b"\r\n\r\n"):
        pass
    connection.recv(1)  # what stays unread makes the end a reset
    connection.sendall(answer)


def before_all(connection: socket.socket, answer: bytes) -> None:
    connection.sendall(answer)


def in_two_parts(connection: socket.socket, answer: bytes) -> None:
    head, body = answer.split(b"\r\n\r\n")
    after_the_head(connection, head + b"\r\n\r\n")
    connection.sendall(body)


def reading_on(connection: socket.socket, answer: bytes) -> None:
    after_the_head(connection, answer)
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(1 << 16):
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Serve connections one after the other by a way of answering; the last answer is repeated."""
    listeners, threads = [], []

    def start(way: Callable[[socket.socket, bytes], None], *answers: bytes) -> str:
        listeners.append(listener := socket.create_server(("127.0.0.1", 0)))

        def run() -> None:
            for answer in itertools.chain(answers, itertools.repeat(answers[-1])):
                try:
                    connection, _ = listener.accept()
                except OSError:  # the test's end
                    return
                with connection, contextlib.suppress(ConnectionError):
                    way(connection, answer)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener, thread in zip(listeners, threads, strict=True):
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


@pytest.mark.parametrize("size", SIZES)
def test_an_early_answer_in_two_parts_is_given_to_the_client_for_threads(
    serve: Callable[..., str], size: int
) -> None:
    url = serve(in_two_parts, f"HTTP/1.1 413 Early\r\n{LENGTH}\r\n".encode() + BODY)
    with (
        Client(url, sleep=lambda _: None) as client,
        pytest.raises(Failure, match="Send a smaller one"),
    ):
        client.predict(b"x" * size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", [before_all, after_the_head, reading_on])
@pytest.mark.parametrize("status", [401, 413])
def test_an_early_answer_is_given(
    serve: Callable[..., str], predict: Predict, way: Any, size: int, status: int
) -> None:
    url = serve(way, f"HTTP/1.1 {status} Early\r\n{LENGTH}\r\n".encode() + BODY)
    with pytest.raises(Failure, match="Send a smaller one") as caught:
        predict(url, b"x" * size)
    assert (caught.value.code, caught.value.status) == ("too_large", status)


def test_an_early_answer_without_a_length(serve: Callable[..., str], predict: Predict) -> None:
    url = serve(reading_on, b"HTTP/1.1 413 Early\r\n\r\n" + BODY)
    with pytest.raises(Failure, match="Send a smaller one"):
        predict(url, b"x" * SIZES[1])


def test_an_early_answer_of_a_proxy_is_named(serve: Callable[..., str], predict: Predict) -> None:
    url = serve(after_the_head, b"HTTP/1.1 413 Too Large\r\ncontent-length: 6\r\n\r\n<html>")
    with pytest.raises(Failure, match=r"HTTP 413 Too Large .* did a proxy answer") as caught:
        predict(url, b"x" * SIZES[2])
    assert (caught.value.code, caught.value.status) == ("not_the_service", 413)


async def ask_until_answered(url: str, waits: list[float]) -> Any:
    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with AsyncClient(url, sleep=sleep) as client:
        return await client.predict(b"x" * SIZES[2])


def test_an_early_503_is_tried_again_when_it_says(serve: Callable[..., str]) -> None:
    full = f"HTTP/1.1 503 Full\r\nretry-after: 7\r\n{LENGTH}\r\n".encode() + BODY
    refusal = f"HTTP/1.1 401 Early\r\n{LENGTH}\r\n".encode() + BODY
    waits: list[float] = []
    with pytest.raises(Failure) as caught:
        asyncio.run(ask_until_answered(serve(after_the_head, full, refusal), waits))
    assert (caught.value.status, waits) == (401, [7.0])


def test_no_answer_at_all(serve: Callable[..., str], predict: Predict) -> None:
    for way in (before_all, after_the_head, reading_on):
        with pytest.raises(Failure) as caught:
            predict(serve(way, b""), b"x" * SIZES[1])
        assert caught.value.code == "unreachable"


def test_an_answer_cut_off_is_none(serve: Callable[..., str], predict: Predict) -> None:
    url = serve(reading_on, f"HTTP/1.1 413 Early\r\n{LENGTH}\r\n".encode() + BODY[:5])
    with pytest.raises(Failure) as caught:
        predict(url, b"x" * SIZES[0])
    assert caught.value.code == "unreachable"


def test_a_connection_is_used_again(serve: Callable[..., str]) -> None:
    """And one that the server has closed is not."""
    body = {"faces": [], "image": {"width": 1, "height": 1}, "model": {}, "timing": {}}
    content = json.dumps(body).encode()
    answer = f"HTTP/1.1 200 OK\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content
    requests = []
    closed = threading.Event()

    def twice(connection: socket.socket, _: bytes) -> None:
        with connection.makefile("rb") as stream:
            for _one in range(2):
                while line := stream.readline().strip():
                    if line.lower().startswith(b"content-length"):
                        length = int(line.split(b":")[1])
                requests.append(stream.read(length))
                connection.sendall(answer)
        connection.close()
        closed.set()

    async def ask(url: str) -> None:
        async with AsyncClient(url, retries=0) as client:
            for picture in (b"1", b"22", b"333", b"4444"):
                await client.predict(picture)
                if len(requests) == 2:
                    await asyncio.to_thread(closed.wait)

    asyncio.run(ask(serve(twice, b"")))
    assert requests == [b"1", b"22", b"333", b"4444"]
