"""Tests of `service.drawing.overlay`."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from service.drawing.overlay import draw_frame, draw_label, draw_overlay, to_png
from service.pictures.faces import Box
from tests.service.drawing.subjects import colour_of, picture, similarity, spot, subject


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((48, 48), (512, 512)),
        ((600, 300), (600, 300)),
        ((4000, 3000), (1024, 768)),
        ((1, 5000), (1, 1024)),
        ((65000, 2), (1024, 1)),
    ],
)
def test_sizes(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    box = Box(0, 0, *size)
    overlay = draw_overlay(picture(*size), [subject(box), subject(box)])
    assert (overlay.size, overlay.mode) == (drawn, "RGB")


def test_without_faces_the_picture_is_left() -> None:
    assert (np.asarray(draw_overlay(picture(600, 600, 77), [])) == 77).all()


@pytest.mark.parametrize("level", [0, 255])
def test_box_and_label_stand_out_from_any_ground(level: int) -> None:
    box = Box(200, 200, 150, 120)
    pixels = np.asarray(draw_overlay(picture(600, 600, level), [subject(box)]), int)
    grey = pixels.mean(axis=2)
    for across in (grey[197:204, 275], grey[316:323, 275], grey[260, 197:204], grey[260, 346:353]):
        assert np.ptp(across) > 230
    label = pixels[170:198, 200:320]
    assert label.min() < 30
    assert label.max() > 240


@pytest.mark.parametrize("x", [-40, 0, 290, 590])
@pytest.mark.parametrize("y", [-40, 0, 290, 590])
def test_words_stay_inside(x: int, y: int) -> None:
    canvas = Image.new("RGB", (600, 600), "red")
    pen = ImageDraw.Draw(canvas)
    draw_label(pen, (x, y), "happiness 0.93", ImageFont.load_default(14), canvas.size)
    dark = np.asarray(canvas).sum(axis=2) < 60
    rows, columns = np.nonzero(dark)
    width = np.ptp(columns) + 1
    assert width > 90
    assert dark[rows.min() : rows.max() + 1, columns.min()].all()  # the ground is whole


def test_evidence_lies_over_its_face_alone() -> None:
    box, crop = Box(320, 120, 160, 160), Box(300, 100, 200, 200)
    face = subject(box, crop, similarity(0, 0.9), spot(12, 12))
    colour = colour_of(draw_overlay(picture(600, 600), [face]))
    outside = np.ones((600, 600), bool)
    outside[100:300, 300:500] = False
    outside[90:125, 318:480] = False  # its label
    assert (colour[outside] < 5).all()
    assert colour[200, 400] > 60


def test_faces_that_leave_the_picture_are_drawn_as_far_as_they_go() -> None:
    boxes = [Box(0, 0, 40, 40), Box(560, 560, 40, 40)]
    crops = [Box(-30, -30, 80, 80), Box(550, 550, 90, 90)]
    theta = similarity(45, 1.3, 0.5, 0.5)
    faces = [subject(b, c, theta, np.ones((24, 24), np.float32)) for b, c in zip(boxes, crops)]  # noqa: B905
    drawn = draw_overlay(picture(600, 600), faces)
    assert colour_of(drawn).max() > 60


def test_a_frame_of_a_tiny_face_is_a_dot() -> None:
    canvas = Image.new("RGB", (9, 9), "red")
    draw_frame(ImageDraw.Draw(canvas), (4, 4, 4, 4))
    assert np.asarray(canvas)[3, 3].tolist() == [16, 16, 20]


def test_png_decodes_to_the_same() -> None:
    image = Image.effect_noise((64, 48), 90).convert("RGB")
    with Image.open(BytesIO(to_png(image))) as read:
        assert (read.format, read.size, read.mode) == ("PNG", (64, 48), "RGB")
        np.testing.assert_array_equal(np.asarray(read), np.asarray(image))
