"""Tests of `service.http.docs`: the page loads nothing from elsewhere."""

import re

import pytest

from service import app as module
from service.http.docs import find_swagger_ui
from tests.service.serving import serving

pytestmark = pytest.mark.anyio


@pytest.mark.skipif(find_swagger_ui() is None, reason="fastapi-offline is not installed")
async def test_everything_that_the_page_loads_is_here() -> None:
    async with serving() as (client, _):
        page = await client.get("/docs")
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert "://" not in page.text
        links = re.findall(r'(?:src|href|data-document)="([^"]+)"', page.text)
        assert len(links) == 4
        for link in links:
            response = await client.get(f"/{link}")
            assert response.status_code == 200, link
            assert len(response.content) > 100
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self';" in policy
        assert "<script>" not in page.text  # the policy forbids it
        assert (await client.head("/docs/swagger-ui.css")).status_code == 200


async def test_without_the_files_the_page_is_fastapis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_swagger_ui", lambda: None)
    async with serving() as (client, _):
        page = await client.get("/docs")
        assert page.status_code == 200
        assert "openapi.json" in page.text
        assert (await client.get("/docs/start.js")).status_code == 404
