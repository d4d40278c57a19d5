"""Tests of `service.http.early_rejection`: the same answer as further inside, and who gets it."""

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.errors import Overloaded, QueueFull, ServiceError
from service.http.v2.messages import MODEL, VERSION
from tests.service.serving import serving

pytestmark = pytest.mark.anyio

PATHS = (
    *("/predict", "/predict/batch", "/explain"),
    *(f"/v2/models/{MODEL}/infer", f"/v2/models/{MODEL}/versions/{VERSION}/infer"),
)
OVERLOADED = Overloaded("The wait would be too long; try again later.", 2.5)
FULL = QueueFull("All places are taken; try again later.", 0.2)
KEY = "some-key-0123456789"
PAGE = "https://page.example"


def refuse_all(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, refusal: ServiceError, early: bool = True
) -> None:
    """Let nobody in; where `early` is false, only the handlers say so."""
    admission = app.state.service.admission
    monkeypatch.setattr(admission, "refusal", lambda *_: refusal if early else None)

    def enter(*_: object) -> None:
        assert not early, "it was not refused early"
        raise refusal

    monkeypatch.setattr(admission, "enter", enter)


async def post(client: httpx.AsyncClient, path: str = "/predict", **headers: str) -> httpx.Response:
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return await client.post(path, content=b"x" * 500, headers=named)


async def test_all_that_is_posted_is_work() -> None:
    async with serving() as (_, app):
        routes = [route for route in app.routes if isinstance(route, APIRoute)]
        assert {r.path for r in routes if "POST" in (r.methods or ())} == set(PATHS)


@pytest.mark.parametrize("refusal", [OVERLOADED, FULL])
@pytest.mark.parametrize("path", PATHS)
async def test_it_answers_as_the_handlers_do(
    path: str, refusal: ServiceError, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as (client, app):
        found = []
        for early in (True, False):
            refuse_all(app, monkeypatch, refusal, early)
            found.append(await post(client, f"{path}?detect=never", x_request_id="tea-time"))
        assert found[0].status_code == found[1].status_code == 503
        assert found[0].json() == found[1].json()
        assert dict(found[0].headers) == dict(found[1].headers)
        assert found[0].headers["x-request-id"] == "tea-time"
        sample = app.state.metrics.registry.get_sample_value
        labels = {"route": path, "kind": "prediction"}
        assert sample("fer_requests_total", {**labels, "method": "POST", "status": "503"}) == 2
        assert sample("fer_request_seconds_count", labels) == 2
        assert sample("fer_rejections_total", {"reason": refusal.code}) == 2


async def test_while_there_is_room_everybody_goes_on() -> None:
    async with serving() as (client, _):
        assert (await post(client)).json()["code"] == "bad_image"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/predict", 405), ("POST", "/nowhere", 404), ("POST", "/health/ready", 405)],
)
async def test_what_is_no_work_is_answered_as_ever(
    method: str, path: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as (client, app):
        refuse_all(app, monkeypatch, OVERLOADED)
        assert (await client.request(method, path)).status_code == status


@pytest.mark.parametrize(
    "headers",
    [{"expect": "100-continue"}, {"transfer_encoding": "chunked"}, {"content_length": "50000000"}],
)
async def test_whose_body_cannot_be_skipped_is_left_to_the_handlers(
    headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as (client, app):
        refuse_all(app, monkeypatch, OVERLOADED)
        with pytest.raises(AssertionError, match="not refused early"):
            app.state.service.admission.enter(0.0)
        answer = await post(client, **headers)
        assert answer.json()["code"] == "internal_error"  # what `enter` raises here


async def test_pages_of_other_origins_may_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(cors_origins=(PAGE,)) as (client, app):
        refuse_all(app, monkeypatch, OVERLOADED, early=False)
        answer = await post(client, origin=PAGE)
        assert answer.status_code == 503
        assert answer.headers["access-control-allow-origin"] == PAGE


async def test_a_service_that_is_not_well_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as (client, app):
        refuse_all(app, monkeypatch, OVERLOADED)
        monkeypatch.setattr(type(app.state.service.batcher), "healthy", False)
        assert (await post(client)).json()["code"] == "not_ready"
        monkeypatch.setattr(app.state, "service", None)
        assert (await post(client)).json()["code"] == "not_ready"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x_api_key": KEY}, 503),
        ({"authorization": f"Bearer {KEY}"}, 503),
        ({"x_api_key": "another-key-01234567"}, 401),
        ({}, 401),
    ],
)
async def test_without_a_key_nobody_learns_how_busy_it_is(
    headers: dict[str, str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(api_keys=(KEY,)) as (client, app):
        refuse_all(app, monkeypatch, OVERLOADED)
        assert (await post(client, **headers)).status_code == status
