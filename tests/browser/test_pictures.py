"""The page with pictures: chosen, dropped, pasted; answered, or refused in words."""

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser import portraits
from tests.browser.asking import BY, answer_to, choose
from tests.browser.conftest import Keep, Visit

if TYPE_CHECKING:
    from playwright.sync_api import Route

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

BUILD_A_TRANSFER = """([name, type, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, { type }));
  return transfer;
}"""


def test_a_chosen_picture_is_answered_with_a_box_and_bars(visit: Visit, keep: Keep) -> None:
    page = visit()
    response = page.request.get(page.url)
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    (face,) = answer_to(page, keep("portrait.jpg", portraits.one_face()))["faces"]
    card = page.get_by_role("article")
    expect(card.get_by_role("heading", level=3)).to_have_text("portrait.jpg")
    expect(card.get_by_role("heading", level=4)).to_contain_text(face["emotion"])
    expect(card).not_to_have_attribute("aria-busy", "true")
    bars = card.get_by_role("list", name="Probabilities").get_by_role("listitem")
    for name, probability in face["probabilities"].items():
        expect(bars.filter(has_text=name)).to_contain_text(f"{probability:.2f}")
    spoken = f"portrait.jpg: one face, {face['emotion']} {face['confidence']:.2f}"
    expect(page.get_by_role("status")).to_have_text(spoken)


def test_the_box_lies_on_the_face(visit: Visit, keep: Keep) -> None:
    page = visit()
    answer = answer_to(page, keep("portrait.jpg", portraits.one_face()))
    box, size = answer["faces"][0]["box"], answer["image"]
    expect(page.locator(".box")).to_have_count(1)
    frame = page.locator(".card .frame").bounding_box()
    drawn = page.locator(".box").bounding_box()
    assert frame is not None
    assert drawn is not None
    scale = frame["width"] / size["width"]
    assert drawn["x"] - frame["x"] == pytest.approx(scale * box["x"], abs=1)
    assert drawn["y"] - frame["y"] == pytest.approx(scale * box["y"], abs=1)
    assert drawn["width"] == pytest.approx(scale * box["width"], abs=1)
    assert drawn["height"] == pytest.approx(scale * box["height"], abs=1)


def test_a_picture_that_lies_on_its_side_is_shown_upright(visit: Visit, keep: Keep) -> None:
    page = visit()
    answer = answer_to(page, keep("turned.jpg", portraits.turned()))
    assert answer["image"] == {"width": 400, "height": 512}
    shown = page.locator(".card canvas").first.evaluate("(c) => [c.width, c.height]")
    assert shown == [400, 512]
    expect(page.get_by_role("article")).to_contain_text(f"400 {BY} 512 pixels")


def test_every_face_has_a_box_and_an_entry(visit: Visit, keep: Keep) -> None:
    page = visit()
    faces = answer_to(page, keep("wall.jpg", portraits.many_faces()))["faces"]
    assert len(faces) == 6
    card = page.get_by_role("article")
    expect(card.locator(".box")).to_have_count(6)
    expect(card.get_by_role("heading", level=4)).to_have_count(6)
    expect(card.get_by_role("heading", level=4).nth(5)).to_contain_text("6")
    card.locator(".face").nth(2).hover()
    expect(card.locator(".box.pointed")).to_have_count(1)
    expect(card.locator(".box").nth(2)).to_have_class(re.compile("pointed"))
    expect(page.get_by_role("status")).to_contain_text("wall.jpg: 6 faces")


def test_no_face_is_said_and_the_options_help(visit: Visit, keep: Keep) -> None:
    page = visit()
    assert answer_to(page, keep("hills.jpg", portraits.no_face()))["faces"] == []
    card = page.get_by_role("article")
    expect(card).to_contain_text("No face was found.")
    expect(card.locator(".box")).to_have_count(0)
    expect(card.get_by_role("button", name="Show why")).to_be_hidden()
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Faces", exact=True).select_option("never")
    expect(card.get_by_role("heading", level=4)).to_have_count(1)
    expect(card).not_to_contain_text("No face was found.")


def test_the_options_go_with_the_request(visit: Visit, keep: Keep) -> None:
    page = visit()
    with page.expect_request(re.compile(r"/predict\?")) as caught:
        choose(page, keep("portrait.jpg", portraits.one_face()))
    assert caught.value.url.endswith("/predict?detect=auto")
    expect(page.get_by_role("heading", level=4)).to_be_visible()
    page.get_by_text("Options", exact=True).click()
    with page.expect_request(re.compile(r"max_faces=")) as caught:
        page.get_by_label("Most faces").fill("3")
        page.keyboard.press("Tab")
    assert caught.value.url.endswith("/predict?detect=auto&max_faces=3")
    expect(page.get_by_role("article")).not_to_have_attribute("aria-busy", "true")


def test_the_prior_goes_with_the_picture_and_its_explanation(visit: Visit, keep: Keep) -> None:
    page = visit()
    usual = answer_to(page, keep("portrait.jpg", portraits.one_face()))
    assert usual["model"]["prior"] == "balanced"
    page.get_by_text("Options", exact=True).click()
    for count, name in enumerate(("uniform", "training"), start=2):
        page.get_by_label("Prior", exact=True).select_option(name)
        answer = page.evaluate("(count) => watch.reached(count)", count)
        assert answer["model"]["prior"] == name
        assert answer["faces"][0]["probabilities"] != usual["faces"][0]["probabilities"]
        expect(page.get_by_role("article")).not_to_have_attribute("aria-busy", "true")
    with page.expect_response(re.compile(r"/explain\?detect=auto&max_faces=16&prior=training")):
        page.get_by_role("button", name="Show why").click()
    expect(page.get_by_role("button", name="Hide why")).to_be_visible()


def test_several_pictures_are_answered_one_after_another(visit: Visit, keep: Keep) -> None:
    page = visit()
    paths = [keep(f"{name}.jpg", portraits.one_face()) for name in "abc"]
    choose(page, *paths)
    cards = page.get_by_role("article")
    expect(cards.get_by_role("heading", level=3)).to_have_text(["a.jpg", "b.jpg", "c.jpg"])
    expect(cards.get_by_role("heading", level=4)).to_have_count(3)
    page.get_by_role("button", name="Remove b.jpg").click()
    expect(cards.get_by_role("heading", level=3)).to_have_text(["a.jpg", "c.jpg"])
    page.get_by_role("button", name="Remove all").click()
    expect(cards).to_have_count(0)
    expect(page.get_by_role("button", name="Choose pictures")).to_be_focused()


def test_a_large_picture_is_scaled_down_and_that_is_said(visit: Visit, keep: Keep) -> None:
    page = visit()
    answer = answer_to(page, keep("large.jpg", portraits.large()))
    assert answer["image"] == {"width": 2048, "height": 1638}
    words = f"3000 {BY} 2400 pixels · scaled down to 2048 {BY} 1638 before sending"
    expect(page.get_by_role("article")).to_contain_text(words)


def test_a_server_that_takes_less_is_sent_less(visit: Visit, keep: Keep) -> None:
    page = visit(expected="413")
    problem = {"title": "The image has too many bytes", "detail": "Send at most 1 kB."}
    refusals: list[dict[str, Any]] = [{"status": 413, "content_type": "application/problem+json"}]

    def refuse_once(route: "Route") -> None:
        if refusals:
            route.fulfill(body=json.dumps(problem), **refusals.pop())
        else:
            route.continue_()

    page.route("**/predict?*", refuse_once)
    choose(page, keep("large.jpg", portraits.large()))
    expect(page.get_by_role("article")).to_contain_text(f"scaled down to 800 {BY} 640")
    expect(page.get_by_role("heading", level=4)).to_be_visible()


@pytest.mark.parametrize(
    ("name", "content", "status", "title"),
    [
        ("broken.jpg", portraits.one_face()[:200], 400, "The image cannot be read"),
        ("words.txt", b"not a picture", 415, "This type of content is not supported"),
    ],
)
def test_what_is_no_picture_is_refused_in_the_services_words(
    name: str, content: bytes, status: int, title: str, visit: Visit, keep: Keep
) -> None:
    page = visit(expected=f"status of {status}")
    answer = answer_to(page, keep(name, content))
    alert = page.get_by_role("article").get_by_role("alert")
    assert answer["title"] == title
    expect(alert).to_contain_text(title)
    expect(alert).to_contain_text(str(answer["detail"]))
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()


def test_a_picture_that_only_the_server_can_read_is_answered(visit: Visit, keep: Keep) -> None:
    page = visit()
    content = portraits.encoded(portraits.portrait(), "TIFF")
    answer = answer_to(page, keep("portrait.tiff", content))
    card = page.get_by_role("article")
    expect(card.get_by_role("heading", level=4)).to_contain_text(answer["faces"][0]["emotion"])
    expect(card).to_contain_text(f"512 {BY} 512 pixels")
    expect(card.locator(".frame")).to_be_hidden()


def test_a_dropped_picture_is_answered(visit: Visit) -> None:
    page = visit()
    data = base64.b64encode(portraits.one_face()).decode()
    transfer = page.evaluate_handle(BUILD_A_TRANSFER, ["dropped.jpg", "image/jpeg", data])
    page.dispatch_event("body", "dragover", {"dataTransfer": transfer})
    expect(page.locator("#drop")).to_have_class("drop over")
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(page.locator("#drop")).to_have_class("drop")
    expect(page.get_by_role("heading", level=3)).to_have_text("dropped.jpg")
    expect(page.get_by_role("heading", level=4)).to_be_visible()


def test_dropped_words_are_refused(visit: Visit) -> None:
    page = visit()
    transfer = page.evaluate_handle("() => new DataTransfer()")
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(page.get_by_text("Only files can be dropped.")).to_be_visible()


def test_a_pasted_picture_is_answered(visit: Visit) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    data = base64.b64encode(portraits.encoded(portraits.portrait(), "PNG")).decode()
    page.evaluate(
        """async (data) => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const blob = new Blob([bytes], { type: "image/png" });
          await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }""",
        data,
    )
    page.keyboard.press("Control+V")
    expect(page.get_by_role("article")).to_contain_text(f"512 {BY} 512 pixels")
    expect(page.get_by_role("heading", level=4)).to_be_visible()


def test_more_pictures_than_the_page_holds_are_refused(visit: Visit) -> None:
    page = visit(expected="Failed to load resource")
    page.route("**/predict?*", lambda route: route.abort())  # what becomes of them is not at issue
    data = base64.b64encode(portraits.encoded(portraits.portrait().resize((8, 8)))).decode()
    page.evaluate(
        """([data]) => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const transfer = new DataTransfer();
          for (let i = 0; i < 30; i += 1) transfer.items.add(new File([bytes], `${i}.jpg`));
          document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer }));
        }""",
        [data],
    )
    expect(page.get_by_role("article")).to_have_count(24)
    expect(page.get_by_text("The page holds 24 pictures")).to_be_visible()


def test_behind_a_proxys_prefix_everything_is_found(visit: Visit, keep: Keep) -> None:
    page = visit()
    root = page.url
    asked: list[str] = []

    def forward(route: "Route") -> None:
        asked.append(route.request.url.removeprefix(root))
        answer = route.fetch(url=route.request.url.replace("/some/prefix/", "/"))
        route.fulfill(response=answer)

    page.goto("about:blank")
    page.route("**/*", forward)
    page.goto(f"{root}some/prefix/")
    answer_to(page, keep("portrait.jpg", portraits.one_face()))
    expect(page.get_by_role("heading", level=4)).to_be_visible()
    assert len(asked) > 10
    assert [path for path in asked if not path.startswith(("some/prefix/", "blob:"))] == []


def test_points_are_shown_where_the_service_saw_them(visit: Visit, keep: Keep) -> None:
    page = visit()
    answer = answer_to(page, keep("portrait.jpg", portraits.one_face()))
    points = page.locator(".point")
    expect(points).to_have_count(5)
    expect(points.first).to_be_hidden()
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Points").select_option("points")
    expect(points.first).to_be_visible()
    eye = answer["faces"][0]["landmarks"]["left_eye"]
    frame, drawn = page.locator(".card .frame").bounding_box(), points.first.bounding_box()
    assert frame is not None
    assert drawn is not None
    scale = frame["width"] / answer["image"]["width"]
    assert drawn["x"] + drawn["width"] / 2 - frame["x"] == pytest.approx(scale * eye["x"], abs=3)
    assert drawn["y"] + drawn["height"] / 2 - frame["y"] == pytest.approx(scale * eye["y"], abs=3)


def test_faces_that_are_left_out_are_named(visit: Visit, keep: Keep) -> None:
    page = visit()
    page.get_by_text("Options", exact=True).click()
    page.get_by_label("Most faces").fill("2")
    answer = answer_to(page, keep("many.jpg", portraits.many_faces()))
    assert answer["truncated"]
    words = f"{answer['faces_found']} faces were found. The largest 2 are shown."
    expect(page.get_by_role("article")).to_contain_text(words)


def test_small_faces_are_searched_for_on_request(visit: Visit, keep: Keep) -> None:
    page = visit()
    answer_to(page, keep("portrait.jpg", portraits.one_face()))
    page.get_by_text("Options", exact=True).click()
    with page.expect_response(re.compile(r"/predict\?detect=auto&min_face=0\.02")) as response:
        page.get_by_label("Small faces").select_option("0.02")
    assert response.value.ok
