"""Tests of `service.pictures.finder`: what is a face where none is looked for."""

import numpy as np
import pytest
from PIL import Image

from service.pictures.finder import FaceFinder
from service.pictures.search import FaceSearch
from tests.service.made_pictures import encoded, ramp
from training.model.manifest import InputSpec

FINDER = FaceFinder(InputSpec(), 10**6, None)


def noisy(level: int, spread: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(-spread, spread + 1, (64, 64))
    return Image.fromarray((level + noise).astype(np.uint8))


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("L", (1, 1)),
        ramp(7, 64),
        ramp(200, 5),
        Image.new("L", (64, 64), 255),
        Image.new("RGB", (300, 300), "navy"),
        noisy(90, 6),
    ],
)
@pytest.mark.parametrize("detect", ["auto", "never"])
def test_what_cannot_show_a_face_is_none(picture: Image.Image, detect: str) -> None:
    found = FINDER.find(encoded(picture, "PNG"), FaceSearch(detect))  # type: ignore[arg-type]
    assert (found.faces, found.faces_found, found.truncated) == ([], 0, False)


@pytest.mark.parametrize("picture", [ramp(8, 8), ramp(48, 48), noisy(20, 12)])
def test_dim_and_small_ones_may_be_faces(picture: Image.Image) -> None:
    assert len(FINDER.find(encoded(picture, "PNG"), FaceSearch("never")).faces) == 1


def test_a_cut_file_may_lack_faces() -> None:
    data = encoded(ramp(), "JPEG")
    assert FINDER.find(data[:-2], FaceSearch()).truncated
    assert not FINDER.find(data, FaceSearch()).truncated
