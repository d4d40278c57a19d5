"""Tests of `service.http.door`: what it says, to whom, and that the application says the same."""

import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.errors import Overloaded, QueueFull, ServiceError
from service.http.handlers import DirectRoute
from service.http.v2.messages import MODEL, VERSION
from service.telemetry import request_id
from tests.service.serving import serving

pytestmark = pytest.mark.anyio

PATHS = (
    *("/predict", "/predict/batch", "/explain"),
    *(f"/v2/models/{MODEL}/infer", f"/v2/models/{MODEL}/versions/{VERSION}/infer"),
)
OVERLOADED = Overloaded("The wait would be too long; try again later.", 2.5)
FULL = QueueFull("All places are taken; try again later.", 0.2)
SMALL = [(b"host", b"x"), (b"content-length", b"500")]
KEY = "some-key-0123456789"


def refuse_all(app: FastAPI, monkeypatch: pytest.MonkeyPatch, refusal: ServiceError) -> None:
    monkeypatch.setattr(app.state.service.admission, "refusal", lambda *_: refusal)


def parse(answer: bytes | None) -> tuple[int, dict[str, str], Any]:
    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    version, status, phrase = first.split(" ", 2)
    assert (version, phrase) == ("HTTP/1.1", "Service Unavailable")
    return int(status), dict(line.split(": ", 1) for line in lines), json.loads(body)


def post(app: FastAPI, headers: list[tuple[bytes, bytes]] = SMALL) -> bytes | None:
    answer: bytes | None = app.state.door.refuse(b"POST", b"/predict", headers)
    return answer


async def test_all_that_is_posted_is_work() -> None:
    async with serving() as (_, app):
        routes = [route for route in app.routes if isinstance(route, DirectRoute)]
        assert {r.path for r in routes if "POST" in (r.methods or ())} == set(PATHS)


@pytest.mark.parametrize("refusal", [OVERLOADED, FULL])
@pytest.mark.parametrize("path", PATHS)
async def test_it_says_what_the_application_says(
    path: str, refusal: ServiceError, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as (client, app):
        refuse_all(app, monkeypatch, refusal)
        headers = [*SMALL, (b"x-request-id", b"tea-time")]
        url = f"{path}?detect=never".encode()
        status, answered, body = parse(app.state.door.refuse(b"POST", url, headers))
        theirs: httpx.Response = await client.post(
            path, content=b"x" * 500, headers={"x-request-id": "tea-time"}
        )
        assert (status, body) == (theirs.status_code, theirs.json())
        assert answered == dict(theirs.headers)
        assert answered["x-request-id"] == "tea-time"
        sample = app.state.metrics.registry.get_sample_value
        labels = {"route": path, "method": "POST", "status": "503"}
        assert sample("fer_requests_total", labels) == 2
        assert sample("fer_request_seconds_count", {"route": path}) == 2
        assert sample("fer_rejections_total", {"reason": refusal.code}) == 2


async def test_each_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as (_, app):
        refuse_all(app, monkeypatch, OVERLOADED)
        names = set()
        for _ in range(3):
            _, headers, body = parse(post(app))
            assert body["instance"].endswith(headers["x-request-id"])
            names.add(headers["x-request-id"])
        assert len(names) == 3
        assert request_id.current() is None


async def test_while_there_is_room_everybody_goes_on() -> None:
    async with serving() as (_, app):
        assert post(app) is None


@pytest.mark.parametrize(
    ("method", "url", "further"),
    [
        (b"GET", b"/predict", ()),
        (b"OPTIONS", b"/predict", ()),
        (b"POST", b"/nowhere", ()),
        (b"POST", b"/health/ready", ()),
        (b"POST", b"http://x/predict", ()),
        (b"POST", b"/predict", ((b"origin", b"https://page.example"),)),
        (b"POST", b"/predict", ((b"expect", b"100-continue"),)),
        (b"POST", b"/predict", ((b"transfer-encoding", b"chunked"),)),
        (b"POST", b"/predict", ((b"content-length", b"50000000"),)),
        (b"POST", b"/predict", ((b"content-length", b"many"),)),
    ],
)
async def test_who_would_hear_something_else_is_left_to_the_application(
    method: bytes,
    url: bytes,
    further: tuple[tuple[bytes, bytes], ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as (_, app):
        refuse_all(app, monkeypatch, OVERLOADED)
        assert app.state.door.refuse(method, url, [*SMALL, *further]) is None


async def test_a_service_that_is_not_well_says_so_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as (_, app):
        refuse_all(app, monkeypatch, OVERLOADED)
        monkeypatch.setattr(type(app.state.service.batcher), "healthy", False)
        assert post(app) is None
        monkeypatch.setattr(app.state, "service", None)
        assert post(app) is None


@pytest.mark.parametrize(
    ("headers", "heard"),
    [
        ([(b"x-api-key", KEY.encode())], True),
        ([(b"authorization", b"Bearer " + KEY.encode())], True),
        ([(b"x-api-key", b"another-key-01234567")], False),
        ([], False),
    ],
)
async def test_without_a_key_nobody_learns_how_busy_it_is(
    headers: list[tuple[bytes, bytes]], heard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(api_keys=(KEY,)) as (_, app):
        refuse_all(app, monkeypatch, OVERLOADED)
        assert (post(app, [*SMALL, *headers]) is not None) is heard
