"""Cut-outs and their way back, with a look that sees one colour instead of faces."""

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from service.pictures.boxes import COLUMNS, Faces, rolls
from service.pictures.second_look import WINDOW, look_again


def sees_red(pixels: npt.NDArray[np.uint8], least: float, levels: tuple[int, ...] = ()) -> Faces:
    """Takes the red of each window for a face, and its green and blue points for the eyes."""
    found = []
    for top in range(0, pixels.shape[0], WINDOW):
        for left in range(0, pixels.shape[1], WINDOW):
            window = pixels[top : top + WINDOW, left : left + WINDOW].astype(int)
            y, x = np.nonzero(window[..., 0] > 128)
            if len(y) > 100:
                box = [left + x.min(), top + y.min(), left + x.max() + 1, top + y.max() + 1]
                found.append([*box, 0.9, *upright((left + x.mean(), top + y.mean()), 10)])
    return np.asarray(found, np.float32).reshape(-1, COLUMNS)


def upright(centre: tuple[float, float], unit: float) -> list[float]:
    x, y = centre
    return [
        *(x - unit, y - unit, x + unit, y - unit),
        *(x, y),
        *(x - unit, y + unit, x + unit, y + unit),
    ]


def painted(*centres: tuple[int, int], side: int = 40) -> Image.Image:
    picture = Image.new("RGB", (600, 400))
    draw = ImageDraw.Draw(picture)
    for x, y in centres:
        half = side // 2
        draw.rectangle((x - half, y - half, x + half - 1, y + half - 1), "red")
    return picture


def suspected(*centres: tuple[int, int], side: float = 44.0, roll: float = 0.0) -> Faces:
    rows = []
    for x, y in centres:
        points = np.asarray(upright((0, 0), 10)).reshape(5, 2)
        cos, sin = np.cos(roll), np.sin(roll)
        there = points @ np.array([[cos, sin], [-sin, cos]]) + (x, y)
        half = side / 2
        rows.append([x - half, y - half, x + half, y + half, 0.2, *there.reshape(-1)])
    return np.asarray(rows, np.float32)


def test_of_many_suspicions_the_true_ones_come_back_to_their_places() -> None:
    true = [(60, 60), (300, 200), (540, 350), (200, 60), (60, 350)]
    faces = look_again(sees_red, painted(*true), suspected(*true, (400, 100), (450, 300)))
    assert len(faces) == len(true)
    for face, (x, y) in zip(faces, true, strict=True):
        assert face[:4] == pytest.approx([x - 20, y - 20, x + 20, y + 20], abs=1.5)
        assert face[4] == pytest.approx(0.9)


@pytest.mark.parametrize("degrees", [30, 90, -120, 180])
def test_a_turned_face_is_shown_upright_and_its_points_turned_back(degrees: float) -> None:
    roll = float(np.radians(degrees))
    (face,) = look_again(sees_red, painted((300, 200)), suspected((300, 200), roll=roll))
    turned = float(rolls(face[None])[0])
    assert np.cos(turned - roll) == pytest.approx(1, abs=1e-4)
    assert (face[:2] + face[2:4]) / 2 == pytest.approx([300, 200], abs=1.5)


def test_what_is_not_in_the_middle_or_of_another_size_is_not_that_face() -> None:
    assert len(look_again(sees_red, painted((340, 200)), suspected((300, 200)))) == 0
    assert len(look_again(sees_red, painted((300, 200), side=12), suspected((300, 200)))) == 0
    assert len(look_again(sees_red, painted(), suspected())) == 0
