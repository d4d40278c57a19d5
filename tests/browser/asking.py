"""What most of the page's tests do first: choose a picture, and wait for its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

BY = "\N{MULTIPLICATION SIGN}"


def choose(page: Page, *paths: Path) -> None:
    page.set_input_files("#files", [str(path) for path in paths])


def answer_to(page: Page, path: Path) -> dict[str, Any]:
    """Choose the page's first picture, and return what the service answered."""
    choose(page, path)
    answer: dict[str, Any] = page.evaluate("() => watch.reached(1)")
    return answer
