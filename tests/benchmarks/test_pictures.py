"""Tests of `benchmarks.serving.pictures`: what is sent is what it is said to be."""

import io

import pytest
from PIL import Image

from benchmarks.serving.pictures import PICTURES, body, jpeg
from service.config import detector_path
from service.pictures.detector import Detector
from service.pictures.finder import FaceFinder
from service.pictures.model_file import read_model
from service.pictures.retinaface import CpuLook, load_network
from service.pictures.search import FaceSearch
from training.model.manifest import InputSpec


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_has_its_size(picture: str) -> None:
    with Image.open(io.BytesIO(jpeg(picture))) as image:
        assert (image.format, image.size) == ("JPEG", PICTURES[picture].size)


@pytest.mark.parametrize("picture", [name for name, kind in PICTURES.items() if not kind.is_crop])
def test_the_service_finds_each_face_of_a_photograph(picture: str) -> None:
    if not detector_path().exists():
        pytest.skip("the detector's weights are not there")
    detector = Detector(CpuLook(load_network(read_model(detector_path()))))
    finder = FaceFinder(InputSpec(), 50_000_000, detector)

    assert finder.find(jpeg(picture), FaceSearch()).faces_found == PICTURES[picture].faces


def test_a_form_holds_the_picture_and_a_raw_body_is_it() -> None:
    assert body("photo", form=False).data == jpeg("photo")
    assert jpeg("photo") in body("photo", form=True).data
