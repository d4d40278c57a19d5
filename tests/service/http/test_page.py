"""Tests of `service.http.page`: the files as they are served; what they do is in tests/browser."""

import re

import pytest

from tests.service.serving import serving

pytestmark = pytest.mark.anyio

KEYS = ("first-key-0123456789",)


def directives(policy: str) -> dict[str, list[str]]:
    parts = [part.split() for part in policy.split(";")]
    return {name: values for name, *values in parts}


async def test_everything_that_the_page_loads_is_here_and_relative() -> None:
    async with serving() as (client, _):
        page = await client.get("/")
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        loaded = re.findall(r'<(?:link|script|img)[^>]*(?:src|href)="([^"]+)"', page.text)
        assert len(loaded) == 3
        scripts = [link for link in loaded if link.endswith(".js")]
        for script in scripts:  # grows as imports are found
            text = (await client.get(f"/{script}")).text
            found = {f"web/{name}" for name in re.findall(r'from "\./([\w.]+)"', text)}
            scripts += sorted(found - set(scripts))
        assert len(scripts) > 5
        for link in {*loaded, *scripts, "docs"}:
            response = await client.get(f"/{link}")
            assert response.status_code == 200, link
            assert "://" not in link


async def test_the_policy_lets_nothing_in_or_out() -> None:
    async with serving() as (client, _):
        for path in ("/", "/web/main.js"):
            headers = (await client.get(path)).headers
            policy = directives(headers["content-security-policy"])
            assert policy["default-src"] == ["'none'"]
            assert policy["script-src"] == policy["style-src"] == ["'self'"]
            assert policy["connect-src"] == ["'self'"]
            for name in ("frame-ancestors", "base-uri", "form-action"):
                assert policy[name] == ["'none'"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["permissions-policy"].startswith("camera=(self)")
        page = (await client.get("/")).text
        assert not re.search(r"\sstyle=|\son\w+=|<style|<script>", page)  # it forbids them


async def test_an_unchanged_file_is_not_sent_again() -> None:
    async with serving() as (client, _):
        first = await client.get("/web/style.css")
        assert first.headers["cache-control"] == "no-cache"
        tag = first.headers["etag"]
        for known in (tag, f'"other", W/{tag}'):
            again = await client.get("/web/style.css", headers={"if-none-match": known})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == tag
        other = await client.get("/web/style.css", headers={"if-none-match": '"other"'})
        assert other.content == first.content


async def test_the_page_is_open_where_the_api_needs_a_key() -> None:
    async with serving(api_keys=KEYS, open_paths=()) as (client, _):
        for path in ("/", "/web/main.js", "/web/style.css"):
            assert (await client.get(path)).status_code == 200
        assert (await client.post("/predict", content=b"x")).status_code == 401
        assert (await client.get("/web/nothing.js")).status_code == 401


async def test_only_its_files_are_served() -> None:
    async with serving() as (client, app):
        for path in ("/web", "/web/", "/web/index.html", "/web/../app.py", "/web/%2e%2e/app.py"):
            assert (await client.get(path)).status_code == 404, path
        assert (await client.head("/")).status_code == 200
        assert (await client.post("/")).status_code == 405
        assert "/" not in app.openapi()["paths"]  # an operation for people, not for programs
