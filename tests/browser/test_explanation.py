"""The page's explanation: on request, what the network saw of each face."""

import json
import re

import pytest

from tests.browser import portraits
from tests.browser.asking import BY, answer_to
from tests.browser.conftest import Keep, Visit

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect


def test_an_explanation_is_shown_and_hidden(visit: Visit, keep: Keep) -> None:
    page = visit()
    (face,) = answer_to(page, keep("portrait.jpg", portraits.one_face()))["faces"]
    card = page.get_by_role("article")
    expect(card.get_by_role("img", name="portrait.jpg", exact=True)).to_be_visible()
    card.get_by_role("button", name="Show why").click()
    overlay = card.get_by_alt_text("portrait.jpg with the evidence laid over its faces")
    expect(overlay).to_be_visible()
    names = (
        re.compile(rf"Aligned: turned \d+°, scaled {BY} \d\.\d\d"),
        "Attention: where it looked",
        f"Evidence: what speaks for {face['emotion']}",
    )
    for image in [overlay, *(card.get_by_alt_text(name) for name in names)]:
        expect(image).to_be_visible()
        # Decoded, which the page's policy might forbid.
        assert image.evaluate("async (image) => { await image.decode(); return true; }")
    expect(page.get_by_role("status")).to_have_text("portrait.jpg: explained")
    hide = card.get_by_role("button", name="Hide why")
    expect(hide).to_have_attribute("aria-expanded", "true")
    hide.click()
    expect(overlay).to_be_hidden()
    expect(card.locator(".why")).to_be_hidden()
    expect(card.get_by_role("button", name="Show why")).to_be_focused()


def test_an_explanation_that_fails_leaves_the_answer(visit: Visit, keep: Keep) -> None:
    page = visit(expected="status of 504")
    answer_to(page, keep("portrait.jpg", portraits.one_face()))
    problem = {"title": "The answer took too long", "detail": "The answer did not come in time."}
    page.route(
        "**/explain?*",
        lambda route: route.fulfill(
            status=504, content_type="application/problem+json", body=json.dumps(problem)
        ),
    )
    card = page.get_by_role("article")
    card.get_by_role("button", name="Show why").click()
    expect(card.get_by_role("alert")).to_contain_text(problem["title"])
    expect(card.get_by_role("heading", level=4)).to_be_visible()
    expect(card.get_by_role("button", name="Show why")).to_be_visible()
