"""The page where the service wants a key, is busy, or is gone."""

from collections.abc import Iterator

import pytest

from tests.browser import portraits
from tests.browser.asking import be_busy, choose
from tests.browser.conftest import Keep, Visit
from tests.service.server_processes import Server, running

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

KEY = "a-key-for-the-page-0123"


@pytest.fixture(scope="module")
def locked() -> Iterator[Server]:
    with running({"FER_API_KEYS": KEY}) as server:
        yield server


def test_a_key_is_asked_for_where_one_is_needed(visit: Visit, keep: Keep, locked: Server) -> None:
    page = visit(expected="status of 401", url=locked.url)
    field = page.get_by_label("This server asks for a key")
    expect(field).to_be_hidden()
    choose(page, *(keep(f"{name}.jpg", portraits.one_face()) for name in "ab"))
    expect(field).to_be_focused()
    page.keyboard.type("too short")
    page.keyboard.press("Enter")
    expect(field).to_be_visible()  # the browser itself refuses it
    field.fill("not-the-key-of-this-server")
    page.keyboard.press("Enter")
    expect(page.get_by_text("The server did not accept that key.")).to_be_visible()
    field.fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    expect(page.get_by_role("heading", level=4)).to_have_count(2)
    expect(field).to_be_hidden()
    stored = "() => [document.cookie, localStorage.length, sessionStorage.length]"
    assert page.evaluate(stored) == ["", 0, 0]


def test_a_busy_service_is_asked_again_when_it_says(visit: Visit, keep: Keep) -> None:
    page = visit(expected="status of 503")
    waits = ["1", "1"]
    be_busy(page, waits)
    choose(page, keep("portrait.jpg", portraits.one_face()))
    words = page.get_by_text("The service is at its limit. Trying again in 1 s…")
    expect(words).to_be_visible()
    expect(page.get_by_role("heading", level=4)).to_be_visible()
    assert waits == []
    expect(words).to_be_hidden()


def test_a_proxys_failure_is_not_taken_for_the_services(visit: Visit, keep: Keep) -> None:
    page = visit(expected="status of 502")
    page.route("**/predict?*", lambda route: route.fulfill(status=502, body="<h1>Bad</h1>"))
    choose(page, keep("portrait.jpg", portraits.one_face()))
    alert = page.get_by_role("article").get_by_role("alert")
    expect(alert).to_contain_text("The answer was an error (502)")
    expect(alert).not_to_contain_text("<h1>")


def test_an_answer_that_never_came_can_be_asked_for_again(visit: Visit, keep: Keep) -> None:
    page = visit(expected="ERR_INTERNET_DISCONNECTED")
    page.context.set_offline(True)
    choose(page, keep("portrait.jpg", portraits.one_face()))
    card = page.get_by_role("article")
    expect(card.get_by_role("alert")).to_contain_text("The server does not answer")
    page.context.set_offline(False)
    card.get_by_role("button", name="Try again").click()
    expect(card.get_by_role("heading", level=4)).to_be_visible()
    expect(card.get_by_role("alert")).to_be_hidden()


# The last of the file: the server that it ends is the others' too.
def test_a_server_that_is_gone_is_said_and_the_camera_released(
    visit: Visit, keep: Keep, locked: Server
) -> None:
    page = visit(expected="status of 401|ERR_", url=locked.url)
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_label("This server asks for a key").fill(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=4)).to_be_visible()
    locked.kill()
    expect(page.get_by_text("The server does not answer.")).to_be_visible()
    expect(page.get_by_role("group", name="Camera")).to_be_hidden()
    choose(page, keep("portrait.jpg", portraits.one_face()))
    card = page.get_by_role("article")
    expect(card.get_by_role("alert")).to_contain_text("The server does not answer")
    expect(card.get_by_role("button", name="Try again")).to_be_visible()
