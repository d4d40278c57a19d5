"""Tests of `service.drawing.figure`."""

import numpy as np
import pytest

from service.drawing.figure import TILE, draw_figure, draw_tiles
from service.drawing.paint import Subject
from service.pictures.faces import Box
from tests.service.drawing.subjects import colour_of, picture, similarity, spot, subject

ATTENTION = np.linspace(0, 1, 144, dtype=np.float32).reshape(12, 12)
FACE = subject(Box(20, 20, 80, 80), Box(10, 10, 100, 100), similarity(10, 0.8), attention=ATTENTION)


@pytest.mark.parametrize("faces", [1, 2, 16])
def test_a_row_a_face(faces: int) -> None:
    figure = draw_figure(picture(200, 200), [FACE] * faces, "model, version 1")
    assert (figure.size, figure.mode) == ((1370, 92 + 284 * faces), "RGB")
    pixels = np.asarray(figure)
    for face in range(1, faces):
        row, first = (pixels[92 + 284 * n :][:224] for n in (face, 0))
        np.testing.assert_array_equal(row, first)


def test_no_face_is_said() -> None:
    figure = draw_figure(picture(200, 200), [], "model, version 1")
    assert figure.size == (1370, 376)
    assert np.ptp(np.asarray(figure)[70:100, :400]) > 100


def test_tiles() -> None:
    tiles = draw_tiles(picture(200, 200), FACE)
    drawn = (tiles.crop, tiles.straightened, tiles.attention, tiles.evidence)
    assert [(t.size, t.mode) for t in drawn] == [((TILE, TILE), "RGB")] * 4
    straightened = np.asarray(tiles.straightened, int)[100, :, 0]
    assert straightened[0] < 5
    assert straightened[-1] > 230
    assert (np.diff(straightened) >= 0).all()
    assert [int(colour_of(t).max()) > 40 for t in drawn] == [False, False, True, True]
    outlined = np.asarray(tiles.crop, int)[..., 0]
    assert outlined.min() < 60
    assert outlined.max() > 200


@pytest.mark.parametrize(
    ("crop", "size"),
    [
        (Box(0, 0, 300, 100), (224, 75)),
        (Box(0, 0, 1, 5000), (1, 224)),
        (Box(3, 4, 1, 1), (224, 224)),
    ],
)
def test_tiles_have_the_crops_shape(crop: Box, size: tuple[int, int]) -> None:
    tiles = draw_tiles(picture(crop.width + crop.x, crop.height + crop.y), subject(crop))
    assert {t.size for t in (tiles.crop, tiles.straightened, tiles.evidence)} == {size}


def bar_lengths(subject: Subject) -> list[int]:
    """Return how many pixels of each row of the bars' column are of a filled bar."""
    pixels = np.asarray(draw_figure(picture(200, 200), [subject], "m"), int)[92:316, 1112:1290]
    filled = (pixels.max(axis=2) < 200) & (pixels.min(axis=2) > 20)
    return [int(row.sum()) for row in filled]


def test_bars_are_as_long_as_probabilities() -> None:
    reasons = subject(Box(0, 0, 9, 9), evidence=spot(0, 0)).explanation
    values = {"anger": 0.25, "fear": 0.0, "happiness": 0.75}
    lengths = bar_lengths(Subject(Box(0, 0, 9, 9), Box(0, 0, 9, 9), values, reasons))
    longest = [max(lengths[start : start + 74]) for start in (0, 74, 148)]
    assert longest[1] == 0
    assert longest[2] == pytest.approx(3 * longest[0], abs=4)


def test_of_many_emotions_the_most_probable_are_drawn() -> None:
    reasons = subject(Box(0, 0, 9, 9)).explanation
    values = {f"emotion {n}": 1 / 40 for n in range(40)}
    figure = draw_figure(
        picture(9, 9), [Subject(Box(0, 0, 9, 9), Box(0, 0, 9, 9), values, reasons)], "m"
    )
    assert figure.size == (1370, 376)
