"""Tests of `service.drawing.colours`: equal steps of a value are equal steps to the eye."""

import numpy as np
import pytest
from numpy.typing import NDArray

from service.drawing.colours import INFERNO, VIRIDIS


def lightness(table: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return CIE L*, 0 to 100, of sRGB colours."""
    share = table / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    y = linear @ (0.2126, 0.7152, 0.0722)
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


@pytest.mark.parametrize("table", [VIRIDIS, INFERNO], ids=["viridis", "inferno"])
def test_lightness_rises_evenly(table: NDArray[np.uint8]) -> None:
    assert table.shape == (256, 3)
    assert table.dtype == np.uint8
    steps = np.diff(lightness(table)[::16])
    assert steps.min() > 0
    assert steps.max() < 1.35 * steps.mean()
    assert np.ptp(lightness(table)) > 70
