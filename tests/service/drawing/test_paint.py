"""Tests of `service.drawing.paint`."""

import numpy as np
import pytest

from service.drawing.colours import INFERNO, VIRIDIS
from service.drawing.frames import View
from service.drawing.paint import format_probability, paint_attention, paint_evidence, render_view
from service.pictures.decode import Picture
from service.pictures.faces import Box, cut_faces
from tests.service.drawing.subjects import colour_of, picture, similarity, spot, subject
from training.model.manifest import InputSpec

BOX = Box(0, 0, 96, 96)
VIEW = View(0, 0, 96, 96, 96, 96)


@pytest.mark.parametrize(
    ("probability", "words"),
    [(0.0, "0.00"), (0.004, "<0.01"), (0.5, "0.50"), (0.993, ">0.99"), (1.0, "1.00")],
)
def test_probabilities_for_people(probability: float, words: str) -> None:
    assert format_probability(probability) == words


def ramp(width: int, height: int, shrunk: int = 1) -> Picture:
    columns = np.arange(width // shrunk) * shrunk
    return Picture(np.tile(columns.astype(np.uint8), (height // shrunk, 1)), width, height)


@pytest.mark.parametrize("shrunk", [1, 2])
def test_a_view_shows_its_part_of_the_original(shrunk: int) -> None:
    shown = np.asarray(render_view(ramp(240, 120, shrunk), View(100, 20, 40, 40, 40, 40)), int)
    assert shown.shape == (40, 40)
    np.testing.assert_allclose(shown[7], np.arange(100, 140), atol=1.5)


def test_beyond_the_picture_its_border_is_repeated() -> None:
    shown = np.asarray(render_view(ramp(240, 120), View(-20, -10, 60, 60, 60, 60)), int)
    assert (shown[:, :20] == 0).all()
    np.testing.assert_allclose(shown[3, 20:], np.arange(40), atol=1)
    outside = render_view(ramp(240, 120), View(500, 500, 60, 60, 30, 30))
    assert outside.size == (30, 30)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_evidence_is_brightest_where_it_is_most_and_leaves_the_rest(level: int) -> None:
    base = render_view(picture(96, 96, level), VIEW)
    evidence = np.zeros((24, 24), np.float32)
    evidence[4:9, 16:21] = 3.0
    painted = paint_evidence(base, subject(BOX, evidence=evidence), VIEW)
    pixels = np.asarray(painted, int)
    expected = 0.9 * INFERNO[255] + 0.1 * level
    np.testing.assert_allclose(pixels[24:28, 72:76].mean((0, 1)), expected, atol=2)
    assert (pixels[48:] == level).all()
    assert (pixels[:, :48] == level).all()
    double = paint_evidence(base, subject(BOX, evidence=2 * evidence), VIEW)
    np.testing.assert_array_equal(np.asarray(double), pixels)  # only relative to the most


def test_no_evidence_at_all_leaves_the_picture() -> None:
    base = render_view(picture(96, 96), VIEW)
    painted = paint_evidence(base, subject(BOX, evidence=np.zeros((24, 24), np.float32)), VIEW)
    assert (np.asarray(painted) == 128).all()


def test_attention_colours_what_was_straightened_and_keeps_its_shade() -> None:
    values = np.ones((12, 12), np.float32)
    values[:, :6] = 0.0
    base = render_view(ramp(96, 96), VIEW)
    face = subject(BOX, theta=similarity(0, 0.5), attention=values)
    pixels = np.asarray(paint_attention(base, face, VIEW), np.float64)
    inner = pixels[26:70]
    grey = np.arange(96)[:, None] / 255
    for columns, colour in ((slice(28, 42), VIRIDIS[0]), (slice(54, 68), VIRIDIS[255])):
        expected = colour * (0.4 + 0.6 * grey[columns])
        np.testing.assert_allclose(inner[:, columns].mean(axis=0), expected, atol=8)
    assert (colour_of(paint_attention(base, face, VIEW))[:, :22] == 0).all()


def test_without_attention_the_picture_is_left() -> None:
    base = render_view(ramp(96, 96), VIEW)
    assert (colour_of(paint_attention(base, subject(BOX), VIEW)) == 0).all()


@pytest.mark.parametrize("angle_deg", [0, 45, 90, 180, -90])
def test_evidence_lies_where_it_was_in_the_picture_however_a_face_is_turned(angle_deg: int) -> None:
    grey = np.full((400, 400), 90, np.uint8)
    angle = np.radians(angle_deg)
    clockwise = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    upright = np.array([[-30, -20], [30, -20], [0, 5], [-20, 40], [20, 40]], float)
    points = 200 + upright @ clockwise.T
    across, down = (200 + np.array([-40.0, -30.0]) @ clockwise.T).round().astype(int)
    grey[down - 6 : down + 6, across - 6 : across + 6] = 250
    found = np.array([[130, 130, 270, 270, 0.99, *points.ravel()]], np.float32)
    (face,) = cut_faces(Picture(grey, 400, 400), InputSpec(), found)
    row, column = np.unravel_index(np.asarray(face.pixels, int).argmax(), face.pixels.shape)
    evidence = spot(int(row) // 2, int(column) // 2)
    drawn = subject(face.box, face.crop, evidence=evidence, turn=face.turn)
    view = View(0, 0, 400, 400, 400, 400)
    base = render_view(Picture(np.full((400, 400), 90, np.uint8), 400, 400), view)
    colour = colour_of(paint_evidence(base, drawn, view))
    painted = np.argwhere(colour > 0.5 * colour.max()).mean(axis=0)
    assert painted == pytest.approx([down, across], abs=9)
