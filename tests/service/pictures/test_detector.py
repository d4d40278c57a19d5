"""The detector on real photographs, through the finder as requests take it."""

from io import BytesIO

import numpy as np
import pytest
import skimage.data
from PIL import ExifTags, Image

from service.config import detector_path
from service.errors import NoDetector
from service.pictures.detector import Detector
from service.pictures.faces import Face
from service.pictures.finder import FaceFinder
from service.pictures.model_file import ModelFileError, read_model
from service.pictures.retinaface import CpuLook, load_network
from service.pictures.search import FaceSearch
from tests.service.collages import Placed, collage, landscape, portrait
from training.model.manifest import InputSpec

SPEC = InputSpec()
AUTO, ALWAYS = FaceSearch("auto"), FaceSearch("always")


@pytest.fixture(scope="module")
def detector() -> Detector:
    try:
        return Detector(CpuLook(load_network(read_model(detector_path()))))
    except ModelFileError as error:
        pytest.skip(f"no face detector: {error}")


@pytest.fixture
def finder(detector: Detector) -> FaceFinder:
    return FaceFinder(SPEC, 50_000_000, detector)


def saved(picture: Image.Image, orientation: int | None = None) -> bytes:
    file, exif = BytesIO(), Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    picture.save(file, "JPEG", quality=92, exif=exif)
    return file.getvalue()


def found(finder: FaceFinder, picture: Image.Image, search: FaceSearch = AUTO) -> list[Face]:
    return finder.find(saved(picture), search).faces


@pytest.mark.parametrize("side", [40, 64, 96, 150, 300])
def test_every_face_is_found_and_nothing_else(finder: FaceFinder, side: int) -> None:
    places = [Placed(330, 380, side), Placed(700, 400, side)]
    faces = found(finder, collage(*places))
    assert len(faces) == 2
    for place in places:
        assert [place.is_in(face.box) for face in faces].count(True) == 1
    for face in faces:
        assert face.pixels.shape == (48, 48)
        assert face.detection is not None
        assert 0.7 <= face.detection <= 1.0


@pytest.mark.parametrize("angle", [-30, -15, 15, 30])
def test_turned_faces_are_found(finder: FaceFinder, angle: float) -> None:
    place = Placed(500, 400, 120)
    (face,) = found(finder, collage(place, angle=angle))
    assert place.is_in(face.box)


@pytest.mark.parametrize("angle", [-135, -90, -45, 0, 45, 90, 180])
def test_a_turned_face_is_cut_out_upright(finder: FaceFinder, angle: float) -> None:
    place = Placed(500, 380, 200)
    (upright,) = found(finder, collage(place))
    (face,) = found(finder, collage(place, angle=angle))
    assert place.is_in(face.box)
    assert face.roll is not None
    # The picture is turned counterclockwise, roll counts clockwise.
    assert (face.roll + angle + 180) % 360 - 180 == pytest.approx(0, abs=15)
    assert face.turn == pytest.approx(face.roll if abs(angle) > 20 else 0, abs=0.1)
    same = np.corrcoef(face.pixels.reshape(-1), upright.pixels.reshape(-1))[0, 1]
    assert same > 0.8


def test_a_crowd_of_turned_faces_is_found(finder: FaceFinder) -> None:
    places = [Placed(150 + 180 * n, 200 + 300 * (n % 2), 60) for n in range(5)]
    for angle in (90, 180, 270):
        faces = found(finder, collage(*places, angle=angle))
        assert [any(p.is_in(face.box) for face in faces) for p in places] == [True] * 5
        assert len(faces) == 5


def test_small_faces_of_a_large_picture_are_found(finder: FaceFinder) -> None:
    places = [Placed(300 + 400 * (n % 9), 300 + 400 * (n // 9), 70) for n in range(45)]
    picture = collage(*places, size=(4000, 2250))
    answer = finder.find(saved(picture), ALWAYS)
    hits = [any(place.is_in(face.box) for face in answer.faces) for place in places]
    assert sum(hits) >= 43
    assert len(answer.faces) <= 45
    assert answer.faces_found == len(answer.faces)
    few = finder.find(saved(picture), FaceSearch("always", max_faces=5))
    assert len(few.faces) == 5
    assert few.faces_found == answer.faces_found
    assert few.truncated
    coarse = finder.find(saved(picture), FaceSearch("always", min_face=0.1))
    assert len(coarse.faces) < 10


def test_landmarks_lie_where_the_face_has_them(finder: FaceFinder) -> None:
    (face,) = found(finder, collage(Placed(500, 380, 200)))
    left_eye, right_eye, nose, mouth_left, mouth_right = face.landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_eye[1] < nose[1] < min(mouth_left[1], mouth_right[1])
    for x, y in face.landmarks:
        assert face.box.x < x < face.box.x + face.box.width
        assert face.box.y < y < face.box.y + face.box.height
    assert face.quality is not None
    assert face.quality.usable


def test_near_and_far_faces_of_one_picture_come_largest_first(finder: FaceFinder) -> None:
    places = [Placed(300, 400, 260), Placed(760, 200, 50), Placed(800, 560, 110)]
    faces = found(finder, collage(*places))
    sides = [max(face.box.width, face.box.height) for face in faces]
    assert sides == sorted(sides, reverse=True)
    assert [any(place.is_in(face.box) for face in faces) for place in places] == [True] * 3
    (largest,) = found(finder, collage(*places), FaceSearch("auto", max_faces=1))
    assert places[0].is_in(largest.box)


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket", "brick", "moon"])
def test_nothing_is_found_where_nobody_is(finder: FaceFinder, name: str) -> None:
    picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    assert found(finder, picture, ALWAYS) == []


def test_a_face_at_the_edge_keeps_its_box_in_the_picture(finder: FaceFinder) -> None:
    place = Placed(500, 45, 120)
    (face,) = found(finder, collage(place))
    assert place.is_in(face.box)
    assert face.box.x >= 0
    assert face.box.y >= 0
    assert face.crop.y < 0  # the crop leaves the picture, whose border is repeated


def test_a_crop_that_one_face_fills_is_found(finder: FaceFinder) -> None:
    tight = portrait(200).crop((110, 110, 290, 290))
    (face,) = found(finder, tight)
    assert face.detection is not None


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_boxes_are_of_the_upright_picture(finder: FaceFinder, orientation: int) -> None:
    place = Placed(700, 300, 150)
    upright = collage(place)
    lying = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}.get(
        orientation, Image.Transpose.ROTATE_270
    )
    answer = finder.find(saved(upright.transpose(lying), orientation), AUTO)
    assert (answer.picture.width, answer.picture.height) == upright.size
    (face,) = answer.faces
    assert place.is_in(face.box)


def test_a_large_jpeg_is_decoded_small_and_answered_in_its_own_pixels(finder: FaceFinder) -> None:
    place = Placed(1800, 1500, 600)
    answer = finder.find(saved(collage(place, size=(4000, 3000))), AUTO)
    assert answer.picture.grey.shape == (750, 1000)
    (face,) = answer.faces
    assert place.is_in(face.box)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "LA", "1"])
def test_faces_are_found_in_pictures_of_every_mode(finder: FaceFinder, mode: str) -> None:
    place, file = Placed(250, 250, 220), BytesIO()
    picture = collage(place, size=(512, 512))
    if mode == "I;16":
        grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        Image.fromarray(grey).save(file, "PNG")
    else:
        picture.convert(mode).save(file, "TIFF" if mode == "CMYK" else "PNG")
    (face,) = finder.find(file.getvalue(), AUTO).faces
    assert place.is_in(face.box)


def test_the_crop_shows_the_face_as_training_crops_do(finder: FaceFinder) -> None:
    (face,) = found(finder, collage(Placed(500, 400, 200)))
    # FER2013's crops reach from the forehead to the chin: the box, made square.
    assert face.crop.width == pytest.approx(max(face.box.width, face.box.height), abs=2)
    shown = np.asarray(collage(Placed(500, 400, 200)).convert("L"), np.float64)
    crop = face.crop
    cut = shown[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
    small = np.asarray(Image.fromarray(cut.astype(np.uint8)).resize((48, 48)), np.float64)
    assert np.abs(small - face.pixels).mean() < 3


@pytest.mark.parametrize("size", [(48, 48), (100, 112), (112, 90)])
def test_small_square_pictures_are_crops_already(finder: FaceFinder, size: tuple[int, int]) -> None:
    (face,) = found(finder, landscape(*size))
    assert face.detection is None
    assert (face.box.width, face.box.height) == size
    assert found(finder, landscape(*size), ALWAYS) == []


def test_never_takes_the_whole_picture(finder: FaceFinder) -> None:
    (face,) = found(finder, collage(Placed(500, 400, 200)), FaceSearch("never"))
    assert face.detection is None
    assert (face.box.width, face.box.height) == (1024, 768)


def test_without_a_detector_every_picture_is_a_face_unless_one_insists() -> None:
    finder = FaceFinder(SPEC, 50_000_000, None)
    (face,) = found(finder, landscape(640, 480))
    assert face.detection is None
    with pytest.raises(NoDetector, match="without detect"):
        found(finder, landscape(640, 480), ALWAYS)


@pytest.mark.parametrize("size", [(1, 1), (3000, 1), (1, 3000), (513, 511), (2049, 64)])
def test_pictures_of_every_shape_are_looked_at(finder: FaceFinder, size: tuple[int, int]) -> None:
    assert found(finder, landscape(*size), ALWAYS) == []
