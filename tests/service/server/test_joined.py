"""Tests of `service.server.joined`."""

import asyncio
from typing import Any, cast

import pytest

from service.server.joined import JoinedAnswers

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Wire:
    """Keeps what is sent, a piece for each time."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def writelines(self, pieces: Any) -> None:
        self.sent.append(b"".join(pieces))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def answers(wire: Wire) -> JoinedAnswers:
    return JoinedAnswers(cast(asyncio.Transport, wire))


def test_a_head_goes_with_what_follows_it(answers: JoinedAnswers, wire: Wire) -> None:
    answers.write(HEAD)
    assert wire.sent == []
    answers.write(b"ok")
    answers.write(b"more")
    assert wire.sent == [HEAD + b"ok", b"more"]


def test_nothing_is_held_back_behind_an_interim_head(answers: JoinedAnswers, wire: Wire) -> None:
    asked_on = b"HTTP/1.1 100 Continue\r\n\r\n"
    answers.write(asked_on)
    assert wire.sent == [asked_on]


def test_a_head_that_nothing_follows_is_sent_at_the_end(answers: JoinedAnswers, wire: Wire) -> None:
    answers.write(HEAD)
    answers.flush()
    answers.flush()
    assert wire.sent == [HEAD]
    answers.write(HEAD)
    answers.close()
    assert (wire.sent, wire.closed) == ([HEAD, HEAD], True)


def test_all_else_is_the_transports_own(answers: JoinedAnswers, wire: Wire) -> None:
    assert answers.sent is wire.sent
