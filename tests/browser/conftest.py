"""A real Chromium at a real server. Without either's package the tests skip and say so.

Chromium is Debian's (`apt-get install chromium`), driven by Playwright's Python package; its
camera is a file that shows the public-domain portrait.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.browser.portraits import camera_film
from tests.service.server_processes import Server, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

PATIENCE_MS = 30_000
Visit = Callable[..., "Page"]
Keep = Callable[[str, bytes], Path]
# Counts what the page asks, and keeps what it was answered. `reached(n)` waits for the nth answer:
# Playwright's own waiting for a condition evaluates strings, which the page's policy forbids.
_WATCH = """
  const watch = (window.watch = { underWay: 0, mostUnderWay: 0, answers: [], waiting: [] });
  watch.reached = (count) => new Promise((resolve) => {
    watch.waiting.push(() => watch.answers.length >= count && resolve(watch.answers[count - 1]));
    watch.waiting.at(-1)();
  });
  const ask = window.fetch;
  window.fetch = async (...what) => {
    watch.underWay += 1;
    watch.mostUnderWay = Math.max(watch.mostUnderWay, watch.underWay);
    try {
      const response = await ask(...what);
      watch.answers.push(await response.clone().json().catch(() => null));
      watch.waiting.forEach((look) => look());
      return response;
    } finally {
      watch.underWay -= 1;
    }
  };
"""


@pytest.fixture(scope="package")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    film = tmp_path_factory.mktemp("camera") / "film.mjpeg"
    film.write_bytes(camera_film())
    arguments = [
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={film}",
    ]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # which root cannot have
    sync_api.expect.set_options(timeout=PATIENCE_MS)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    with running({}) as server:
        yield server


@pytest.fixture
def visit(chromium: Browser, server: Server) -> Iterator[Visit]:
    """Open the page; at the test's end, hold it to have asked no other host, and not complained.

    `expected` matches what its console may say; `url` is another server's, `script` runs before
    the page's own, and all else is for Playwright's context.
    """
    with ExitStack() as stack:

        def open_page(
            expected: str = "$^", url: str = server.url, script: str = "", **options: Any
        ) -> Page:
            visiting = _visiting(chromium, url, script, expected, options)
            return stack.enter_context(visiting)

        yield open_page


@contextmanager
def _visiting(
    browser: Browser, url: str, script: str, expected: str, options: dict[str, Any]
) -> Iterator[Page]:
    complaints: list[str] = []
    hosts: set[str] = set()

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not re.search(expected, message.text):
            complaints.append(message.text)

    with browser.new_context(**options) as context:
        context.set_default_timeout(PATIENCE_MS)
        context.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page = context.new_page()
        page.on("console", listen)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.add_init_script(_WATCH + script)
        page.goto(url)
        yield page
    assert complaints == []
    # Pictures that are shown, and explanations, have no host.
    assert hosts - {""} == {urlsplit(url).netloc}


@pytest.fixture
def keep(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Write a picture where the browser can choose it."""

    def write(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write
