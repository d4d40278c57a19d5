"""Tests of `service.drawing.frames`: a map lies where the network read it."""

import numpy as np
import pytest
import torch
from torch.nn.functional import affine_grid, grid_sample

from service.drawing.frames import View, describe, outline, project
from service.pictures.faces import Box
from tests.service.drawing.subjects import IDENTITY, similarity, spot

CROP = Box(100, 40, 200, 200)
OVER_CROP = View(100, 40, 200, 200, 240, 240)


def brightest(values: np.ndarray) -> tuple[float, float]:
    """Return the middle of the brightest pixel, x and y."""
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    return float(column) + 0.5, float(row) + 0.5


@pytest.mark.parametrize(
    "theta",
    [IDENTITY, similarity(30), similarity(-20, 0.8, 0.2, -0.1), similarity(0, 1.25, -0.3, 0.3)],
)
def test_a_place_lies_where_the_network_read_it(theta: np.ndarray) -> None:
    """A dot in the crop is sampled as the STN does; its place is laid back onto the dot."""
    crop = torch.zeros(1, 1, 240, 240)
    crop[0, 0, 100, 140] = 1.0
    wide = torch.nn.functional.avg_pool2d(crop, 15, 1, 7)
    grid = affine_grid(torch.from_numpy(theta)[None], [1, 1, 48, 48], align_corners=False)
    seen = grid_sample(wide, grid, align_corners=False)[0, 0].numpy()
    x, y = brightest(project(seen, theta, CROP, OVER_CROP))
    assert abs(x - 140.5) < 6
    assert abs(y - 100.5) < 6


def test_without_a_transform_cells_divide_the_crop_evenly() -> None:
    laid = project(spot(6, 18), IDENTITY, CROP, OVER_CROP)
    assert brightest(laid) == pytest.approx((185.0, 65.0), abs=1.0)
    assert not np.isnan(laid).any()


def test_a_view_of_the_whole_picture() -> None:
    view = View(0, 0, 400, 400, 200, 200)  # half the size
    laid = project(np.ones((6, 6), np.float32), IDENTITY, CROP, view)
    inside = ~np.isnan(laid)
    expected = np.zeros((200, 200), bool)
    expected[20:120, 50:150] = True
    np.testing.assert_array_equal(inside, expected)
    np.testing.assert_allclose(laid[inside], 1.0, atol=1e-5)


def test_a_view_may_leave_the_crop_behind() -> None:
    assert np.isnan(project(spot(0, 0), IDENTITY, CROP, View(900, 900, 50, 50, 10, 10))).all()


def test_the_outline_is_around_what_is_laid() -> None:
    theta = similarity(20, 0.7, 0.1, 0.05)
    laid = ~np.isnan(project(np.ones((6, 6), np.float32), theta, CROP, OVER_CROP))
    corners = np.array(outline(theta, CROP, OVER_CROP))
    sides = corners - np.roll(corners, 1, axis=0)
    np.testing.assert_allclose(np.hypot(*sides.T), 0.7 * 240, rtol=1e-5)
    area = 0.5 * abs(np.sum(corners[:, 0] * np.roll(corners[:, 1], 1)
                            - corners[:, 1] * np.roll(corners[:, 0], 1)))  # fmt: skip
    assert laid.sum() == pytest.approx(area, rel=0.01)
    rows, columns = np.nonzero(laid)
    middle = columns.mean() + 0.5, rows.mean() + 0.5
    assert middle == pytest.approx(tuple(corners.mean(axis=0)), abs=0.5)


@pytest.mark.parametrize("theta", [IDENTITY, similarity(25, 0.8, 0.3, -0.2)])
def test_what_was_done_undoes_the_reading(theta: np.ndarray) -> None:
    """Moved, then turned, then enlarged: the corner that was read comes to the corner."""
    made = describe(theta)
    x, y = theta @ (-1.0, -1.0, 1.0)
    x, y = x + 2 * made.shift_x, y + 2 * made.shift_y
    angle = np.radians(made.angle_deg)  # clockwise, since y goes down
    x, y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    assert (x * made.scale, y * made.scale) == pytest.approx((-1.0, -1.0), abs=1e-5)


def test_a_transform_that_flattens_the_face_is_described_too() -> None:
    made = describe(np.zeros((2, 3), np.float32))
    assert np.isfinite([made.angle_deg, made.scale, made.shift_x, made.shift_y]).all()
    assert project(spot(0, 0), np.zeros((2, 3), np.float32), CROP, OVER_CROP).shape == (240, 240)
