"""The page for everybody: by keyboard, by ear, on a small screen, in the dark, without movement."""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import portraits
from tests.browser.asking import answer_to, choose
from tests.browser.conftest import Keep, Visit

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

CONTRAST = (Path(__file__).parent / "contrast.js").read_text()
FOCUSED = """() => {
  const { activeElement: element } = document;
  const { outlineStyle, outlineWidth } = getComputedStyle(element);
  return [element.textContent.trim() || element.getAttribute("aria-label") || element.id,
          outlineStyle !== "none" && outlineWidth !== "0px"];
}"""


def tab(page: "Page") -> str:
    """Go on by keyboard, and return the name of what has the focus then, which must be seen."""
    page.keyboard.press("Tab")
    name, outlined = page.evaluate(FOCUSED)
    assert outlined, name
    return str(name)


def test_everything_is_done_by_keyboard(visit: Visit, keep: Keep) -> None:
    page = visit()
    path = keep("portrait.jpg", portraits.one_face())
    page.on("filechooser", lambda chooser: chooser.set_files(path))
    names = [tab(page) for _ in range(6)]
    assert names == [
        "Skip to the results", "What this is not", "API",
        "Choose pictures", "Use the camera", "Options",
    ]  # fmt: skip
    page.keyboard.press("Enter")
    assert [tab(page) for _ in range(3)][1] == "max-faces"
    for _ in range(5):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=4)).to_be_visible()
    names = [tab(page) for _ in range(10)]
    assert names[7:] == ["Remove all", "Remove portrait.jpg", "Show why"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("article")).to_have_count(0)
    expect(page.get_by_role("button", name="Choose pictures")).to_be_focused()


def test_everything_has_a_name(visit: Visit, keep: Keep) -> None:
    page = visit()
    answer_to(page, keep("portrait.jpg", portraits.one_face()))
    page.get_by_text("Options", exact=True).click()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, img, canvas, section")]
          .filter((e) => e.checkVisibility() && !e.closest("[aria-hidden=true]"))
          .filter((e) => !(e.textContent.trim() || e.labels?.length || e.alt
                           || e.getAttribute("aria-label") || e.getAttribute("aria-labelledby")))
          .map((e) => e.outerHTML)"""
    )
    assert nameless == []
    levels = page.locator("h1, h2, h3, h4").evaluate_all("(all) => all.map((h) => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.locator("html").get_attribute("lang") == "en"
    expect(page.get_by_role("status")).to_have_attribute("aria-live", "polite")


@pytest.mark.parametrize("width", [320, 360])
def test_a_narrow_screen_scrolls_down_alone(width: int, visit: Visit, keep: Keep) -> None:
    page = visit(viewport={"width": width, "height": 640}, expected="status of 400")
    long = "a-very-long-name-without-any-space-in-it-" * 4 + ".jpg"
    choose(
        page,
        keep(long, portraits.many_faces()),
        keep("portrait.jpg", portraits.one_face()),
        keep("broken.jpg", b"\xff\xd8\xff broken"),
    )
    expect(page.get_by_role("article").last.get_by_role("alert")).to_be_visible()
    page.get_by_text("Options", exact=True).click()
    assert page.evaluate("() => document.documentElement.scrollWidth") == width
    beyond = page.evaluate(
        """(width) => [...document.querySelectorAll("main *")]
          .filter((e) => e.checkVisibility() && !e.closest(".unseen, .frame"))
          .filter((e) => e.getBoundingClientRect().right > width)
          .map((e) => e.outerHTML.slice(0, 99))""",
        width,
    )
    assert beyond == []
    small = page.locator("button:visible").evaluate_all(
        "(all) => all.filter((e) => e.getBoundingClientRect().height < 44).length"
    )
    assert small == 0  # for fingers


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_and_edges_stand_out(scheme: str, visit: Visit, keep: Keep) -> None:
    page = visit(color_scheme=scheme, reduced_motion="reduce", expected="status of 400")
    ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(246, 245, 241)", "dark": "rgb(17, 21, 20)"}[scheme]
    paths = keep("portrait.jpg", portraits.one_face()), keep("broken.jpg", b"\xff\xd8\xff broken")
    choose(page, *paths)
    expect(page.get_by_role("article").last.get_by_role("alert")).to_be_visible()
    page.get_by_text("Options", exact=True).click()
    found = page.evaluate(CONTRAST)
    assert len(found["texts"]) > 40
    assert len(found["edges"]) == 8
    assert [text for text in found["texts"] if text["ratio"] < 4.5] == []
    assert [edge for edge in found["edges"] if edge["ratio"] < 3] == []


def test_nothing_moves_for_who_wants_it_so(visit: Visit, keep: Keep) -> None:
    page = visit(reduced_motion="reduce")
    answer_to(page, keep("portrait.jpg", portraits.one_face()))
    moving = page.evaluate(
        """() => [...document.querySelectorAll("*")].flatMap((e) => [null, "::after"].map(
          (part) => getComputedStyle(e, part)))
          .filter((s) => s.animationName !== "none" || parseFloat(s.transitionDuration) > 0)
          .length"""
    )
    assert moving == 0


@pytest.mark.parametrize("width", [360, 1100])
def test_an_answer_moves_nothing_that_is_there(width: int, visit: Visit, keep: Keep) -> None:
    page = visit(viewport={"width": width, "height": 800})
    held: list[Route] = []
    page.route("**/predict?*", lambda route: held.append(route))
    with page.expect_request("**/predict?*"):
        choose(page, keep("portrait.jpg", portraits.one_face()))
    expect(page.get_by_text("Looking for faces…")).to_be_visible()
    places = "() => ['.card .frame', '#notice'].map((s) => document.querySelector(s).offsetTop)"
    before = page.evaluate(places)
    held.pop().continue_()
    expect(page.get_by_role("heading", level=4)).to_be_visible()
    assert page.evaluate(places) == before


def test_the_notice_says_what_it_is_not(visit: Visit) -> None:
    page = visit()
    page.get_by_role("link", name="What this is not").click()
    notice = page.get_by_role("region", name="What this is not")
    expect(notice).to_be_in_viewport()
    for words in ("Barrett", "Art. 5(1)(f)", "Art. 50(3)", "keeps none"):
        expect(notice).to_contain_text(words)
    link = page.get_by_role("link", name="API").evaluate("(link) => link.href")
    assert page.request.get(link).status == 200
