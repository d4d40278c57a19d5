"""The page with a camera, which is a film of the portrait."""

import re

import pytest

from tests.browser.asking import BY, be_busy
from tests.browser.conftest import Visit

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

# Keeps the streams that the page opens, to see whether it closes them.
STREAMS = """
  window.streams = [];
  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wishes) => {
    window.streams.push(await open(wishes));
    return window.streams.at(-1);
  };
"""
STATES = "() => streams.flatMap((s) => s.getTracks()).map((t) => t.readyState)"


def test_frames_are_asked_about_one_at_a_time(visit: Visit) -> None:
    page = visit(script=STREAMS)
    page.get_by_role("button", name="Use the camera").click()
    page.evaluate("() => watch.reached(12)")
    live = page.get_by_role("group", name="Camera")
    expect(live.get_by_role("heading", level=4)).to_have_count(1)
    expect(live.locator(".box")).to_have_count(1)
    expect(live).to_contain_text(re.compile(r"\d+\.\d frames a second"))
    expect(live).to_contain_text(re.compile(r"[1-9]\d* ms each"))
    expect(page.get_by_role("status")).to_contain_text("Camera:")
    assert page.evaluate("() => watch.mostUnderWay") == 1
    live.get_by_role("button", name="Stop").click()
    expect(live).to_be_hidden()
    assert page.evaluate(STATES) == ["ended"]
    expect(page.get_by_role("button", name="Use the camera")).to_be_focused()
    asked = page.evaluate("() => watch.answers.length")
    page.get_by_role("button", name="Use the camera").click()  # and again
    page.evaluate(f"() => watch.reached({asked + 2})")
    assert page.evaluate(STATES) == ["ended", "live"]


def test_a_frame_can_be_kept(visit: Visit) -> None:
    page = visit()
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_role("button", name="Keep this frame").click()
    card = page.get_by_role("article")
    expect(card.get_by_role("heading", level=3)).to_have_text("Camera")
    expect(card.get_by_role("heading", level=4)).to_be_visible()
    expect(card).to_contain_text(f"640 {BY} 480 pixels")


def test_a_hidden_page_releases_the_camera(visit: Visit) -> None:
    page = visit(script=STREAMS)
    page.get_by_role("button", name="Use the camera").click()
    page.evaluate("() => watch.reached(1)")
    page.evaluate(
        """() => {
          Object.defineProperty(document, "hidden", { value: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    expect(page.get_by_text("The camera was released")).to_be_visible()
    assert page.evaluate(STATES) == ["ended"]


def test_a_camera_that_is_taken_away_is_said(visit: Visit) -> None:
    page = visit(script=STREAMS)
    page.get_by_role("button", name="Use the camera").click()
    page.evaluate("() => watch.reached(1)")
    page.evaluate("() => streams[0].getTracks()[0].dispatchEvent(new Event('ended'))")
    expect(page.get_by_text("The camera stopped.")).to_be_visible()
    expect(page.get_by_role("group", name="Camera")).to_be_hidden()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("NotAllowedError", "The camera was not allowed."),
        ("NotFoundError", "No camera was found."),
        ("NotReadableError", "The camera cannot be used."),
    ],
)
def test_no_camera_is_said_in_words(kind: str, words: str, visit: Visit) -> None:
    fail = f"() => Promise.reject(new DOMException('', '{kind}'))"
    page = visit(script=f"navigator.mediaDevices.getUserMedia = {fail};")
    page.get_by_role("button", name="Use the camera").click()
    expect(page.get_by_role("alert")).to_contain_text(words)
    expect(page.get_by_role("button", name="Choose pictures")).to_be_visible()


def test_stopping_before_the_camera_is_allowed_closes_it_when_it_is(visit: Visit) -> None:
    hesitate = """
      const opened = navigator.mediaDevices.getUserMedia;
      navigator.mediaDevices.getUserMedia = (wishes) => new Promise((resolve) => {
        window.allow = async () => resolve(await opened(wishes));
      });
    """
    page = visit(script=STREAMS + hesitate)
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("button", name="Choose pictures")).to_be_visible()
    page.evaluate("() => allow()")
    assert page.evaluate(STATES) == ["ended"]


def test_a_busy_service_is_left_alone_as_long_as_it_says(visit: Visit) -> None:
    page = visit(expected="status of 503")
    waits = ["1"]
    be_busy(page, waits)
    page.get_by_role("button", name="Use the camera").click()
    live = page.get_by_role("group", name="Camera")
    expect(live).to_contain_text("The service is at its limit. Going on in 1 s…")
    expect(live.get_by_role("heading", level=4)).to_be_visible()
