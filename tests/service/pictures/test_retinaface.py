"""One look at a real photograph, and the same network as torch computes it by itself."""

import numpy as np
import pytest
import skimage.data
import torch

from service.config import detector_path
from service.pictures import retinaface
from service.pictures.boxes import most_confident, sides
from service.pictures.model_file import ModelFileError, read_model
from service.pictures.retinaface import CpuLook, RetinaFace, load_network


@pytest.fixture(scope="module")
def network() -> RetinaFace:
    try:
        return load_network(read_model(detector_path()))
    except ModelFileError as error:
        pytest.skip(f"no face detector: {error}")


@pytest.fixture
def threads() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_face_and_its_points_are_where_they_are(network: RetinaFace) -> None:
    found = most_confident(CpuLook(network)(skimage.data.astronaut(), 0.5), 0.4)
    assert len(found) == 1
    assert found[0, :4] == pytest.approx([178, 56, 270, 176], abs=4)
    assert found[0, 4] > 0.99
    eyes_nose_mouth = [204, 103, 245, 104, 224, 129, 203, 139, 245, 140]
    assert found[0, 5:] == pytest.approx(eyes_nose_mouth, abs=4)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("size", [(512, 512), (301, 407), (33, 600), (7, 5)])
def test_a_packed_network_sees_what_the_plain_one_does(
    network: RetinaFace, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.ascontiguousarray(skimage.data.astronaut()[: size[0], : size[1]])
    fast = CpuLook(network)(pixels, 0.02)
    exact = CpuLook(network, precision="float32")(pixels, 0.02)
    monkeypatch.setattr(retinaface, "pack", lambda network, precision: network)
    plain = CpuLook(network)(pixels, 0.02)
    assert exact == pytest.approx(plain, abs=0.05)
    narrow, wide = (most_confident(faces[faces[:, 4] > 0.5], 0.4) for faces in (fast, plain))
    assert len(narrow) == len(wide)
    assert (np.abs(narrow - wide) <= 0.03 * sides(wide)[:, None]).all()


@pytest.mark.usefixtures("threads")
def test_a_picture_that_nobody_may_write_to_is_looked_at(network: RetinaFace) -> None:
    pixels = skimage.data.coffee()[:64, :64].copy()
    pixels.flags.writeable = False
    assert CpuLook(network)(pixels, 0.5).shape == (0, 15)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises((KeyError, ValueError, RuntimeError)):
        load_network((2).to_bytes(8, "little") + b"{}")
