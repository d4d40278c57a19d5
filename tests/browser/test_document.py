"""The page at /docs in a browser: what it asks of the service."""

from typing import TYPE_CHECKING

from tests.browser.conftest import Visit

if TYPE_CHECKING:
    from playwright.sync_api import Route


def test_behind_a_proxys_prefix_a_request_can_be_tried(visit: Visit) -> None:
    page = visit()
    root = page.url

    def forward(route: "Route") -> None:
        answer = route.fetch(url=route.request.url.replace("/some/prefix/", "/"))
        route.fulfill(response=answer)

    page.goto("about:blank")
    page.route("**/some/prefix/**", forward)
    page.goto(f"{root}some/prefix/docs")
    page.get_by_text("Whether the process answers at all").click()
    page.get_by_role("button", name="Try it out").click()
    with page.expect_response("**/health/live") as answer:
        page.get_by_role("button", name="Execute").click()
    assert answer.value.url == f"{root}some/prefix/health/live"
    assert answer.value.status == 200
