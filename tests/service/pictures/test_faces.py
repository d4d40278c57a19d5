"""Tests of `service.pictures.faces`: whole pictures, the pixels that training would have made."""

import numpy as np
import pytest
from PIL import Image

from service.pictures.decode import Picture
from service.pictures.faces import Box, whole_picture
from tests.service.made_pictures import ramp
from training.model.manifest import InputSpec


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
def test_the_picture_is_the_face(resample: str) -> None:
    spec = InputSpec(height=48, width=40, resample=resample)  # type: ignore[arg-type]
    grey = ramp(200, 120)
    face = whole_picture(Picture(np.asarray(grey), 200, 120), spec)
    assert face.box == Box(0, 0, 200, 120)
    assert face.pixels.dtype == np.uint8
    expected = grey.resize((40, 48), Image.Resampling[resample.upper()])
    np.testing.assert_array_equal(face.pixels, np.asarray(expected))


def test_a_face_of_the_right_size_is_left_alone() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)
    face = whole_picture(Picture(grey, 48, 48), InputSpec())
    np.testing.assert_array_equal(face.pixels, grey)


def test_the_box_is_of_the_original() -> None:
    face = whole_picture(Picture(np.asarray(ramp(100, 50)), 800, 400), InputSpec())
    assert face.box == Box(0, 0, 800, 400)


def test_a_single_pixel_is_a_picture() -> None:
    face = whole_picture(Picture(np.full((1, 1), 7, np.uint8), 1, 1), InputSpec())
    assert face.pixels.shape == (48, 48)
    assert (face.pixels == 7).all()
