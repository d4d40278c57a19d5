"""Faces followed over frames: the page's `track.js`, run in the browser as it is served."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from tests.browser.conftest import Visit

Frame = tuple[float, Sequence[dict[str, Any]]]


def face(x: float, happiness: float = 0.5, width: float = 100) -> dict[str, Any]:
    return {
        "box": {"x": x, "y": 0, "width": width, "height": 100},
        "emotion": "happiness" if happiness >= 0.5 else "fear",
        "confidence": max(happiness, 1 - happiness),
        "probabilities": {"happiness": happiness, "fear": 1 - happiness},
    }


def followed(visit: Visit, frames: Sequence[Frame]) -> list[list[dict[str, Any]]]:
    tracks: list[list[dict[str, Any]]] = visit().evaluate(
        """async (frames) => {
          const { Tracker } = await import("./web/track.js");
          const tracker = new Tracker();
          return frames.map(([at, faces]) => structuredClone(tracker.next(faces, at)));
        }""",
        frames,
    )
    return tracks


def test_probabilities_follow_exponentially_whatever_the_frames_distance(visit: Visit) -> None:
    steps = [(10 + 0.1 * i, [face(0, 0.0 if i else 1.0)]) for i in range(9)]
    leap = [(20.0, [face(0, 1.0)]), (20.8, [face(0, 0.0)])]
    shown = followed(visit, [*steps, *leap])
    (fine,), (coarse,) = shown[8], shown[10]
    expected = math.exp(-0.8 / 0.4)
    for track in (fine, coarse):
        assert track["probabilities"]["happiness"] == pytest.approx(expected, abs=1e-6)
        assert sum(track["probabilities"].values()) == pytest.approx(1.0)
        assert track["emotion"] == "fear"
        assert track["confidence"] == track["probabilities"]["fear"]
    assert shown[1][0]["emotion"] == "happiness"  # one frame turns nothing over


def test_a_face_is_the_same_while_its_boxes_overlap(visit: Visit) -> None:
    frames: list[Frame] = [
        (1.0, [face(0), face(300)]),
        (1.1, [face(320), face(20)]),  # in another order
        (1.2, [face(40), face(600)]),  # the second is gone, a third is there
    ]
    first, second, third = followed(visit, frames)
    assert [track["number"] for track in first] == [1, 2]
    assert [track["number"] for track in second] == [1, 2]
    assert second[0]["box"]["x"] < 30 < 300 < second[1]["box"]["x"]
    assert [track["number"] for track in third] == [1, 2, 3]  # one missed frame is no absence


def test_a_face_that_left_is_forgotten_and_its_number_given_away(visit: Visit) -> None:
    frames: list[Frame] = [
        (1.0, [face(0), face(300)]),
        (1.5, [face(300)]),
        (1.7, [face(300)]),
        (1.8, [face(300), face(600)]),
    ]
    shown = followed(visit, frames)
    assert [[track["number"] for track in tracks] for tracks in shown] == [
        [1, 2],
        [1, 2],
        [2],
        [1, 2],
    ]
    assert shown[3][0]["box"]["x"] == 600


def test_overlap_is_shared_area_over_all_area(visit: Visit) -> None:
    values = visit().evaluate(
        """async ([a, b, c]) => {
          const { overlap } = await import("./web/track.js");
          return [overlap(a, a), overlap(a, b), overlap(b, a), overlap(a, c)];
        }""",
        [face(0)["box"], face(50)["box"], face(100)["box"]],
    )
    assert values == pytest.approx([1, 1 / 3, 1 / 3, 0])
