"""What tests of the page do first: choose a picture, wait for its answer, be a busy service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page, Route

BY = "\N{MULTIPLICATION SIGN}"


def choose(page: Page, *paths: Path) -> None:
    page.set_input_files("#files", [str(path) for path in paths])


def answer_to(page: Page, path: Path) -> dict[str, Any]:
    """Choose the page's first picture, and return what the service answered."""
    choose(page, path)
    answer: dict[str, Any] = page.evaluate("() => watch.reached(1)")
    return answer


def be_busy(page: Page, waits: list[str]) -> None:
    """Answer as a service at its limit does, once for each of `waits`: seconds until the next."""

    def refuse(route: Route) -> None:
        if not waits:
            route.continue_()
            return
        route.fulfill(
            status=503,
            content_type="application/problem+json",
            headers={"retry-after": waits.pop()},
            body='{"title": "The service is at its limit", "detail": "Later."}',
        )

    page.route("**/predict?*", refuse)
