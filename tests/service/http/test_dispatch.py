"""Tests of `service.http.dispatch`: straight to the endpoint, and the router for the rest."""

import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from service.http.dispatch import Dispatch
from tests.service.serving import serving

pytestmark = pytest.mark.anyio


class Router:
    """Notes what gets as far as the router."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope.get("path", scope["type"]))


async def ask(app: FastAPI, method: str, path: str, kind: str = "http") -> tuple[list[str], int]:
    """Return what got as far as the router, and the status of a direct answer."""
    router, statuses = Router(), [0]
    scope = {"type": kind, "method": method, "path": path, "headers": [], "app": app}

    async def send(message: dict[str, object]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])  # type: ignore[arg-type]

    await Dispatch(router, app.routes)(scope, None, send)  # type: ignore[arg-type]
    return router.asked, statuses[-1]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/health/live", 200),
        ("GET", "/health/ready", 200),
        ("GET", "/v2/health/live", 200),
        ("POST", "/health/live", 0),
        ("GET", "/health/live/", 0),
        ("GET", "/openapi.json", 0),
        ("GET", "/nowhere", 0),
    ],
)
async def test_what_is_answered_directly(method: str, path: str, status: int) -> None:
    async with serving() as (_, app):
        assert await ask(app, method, path) == ([] if status else [path], status)


async def test_all_else_passes() -> None:
    async with serving() as (_, app):
        assert await ask(app, "GET", "/health/live", "lifespan") == (["/health/live"], 0)
