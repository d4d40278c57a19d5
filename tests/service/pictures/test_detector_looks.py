"""Which looks the detector takes, with a look that sees red squares and remembers what it saw."""

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from service.pictures.boxes import COLUMNS, Faces
from service.pictures.detector import COARSE_SIDE, Detector
from service.pictures.second_look import WINDOW

Sizes = list[tuple[int, int]]


class RedLook:
    """Sees each red square of at least `seen_from` pixels, as confident as it is told to be."""

    def __init__(self, confidence: float = 1.0, again: float = 0.95, seen_from: int = 16) -> None:
        self.sizes: Sizes = []
        self._confidence, self._again, self._seen_from = confidence, again, seen_from

    def __call__(
        self, pixels: npt.NDArray[np.uint8], least: float, levels: tuple[int, ...] = ()
    ) -> Faces:
        height, width, _ = pixels.shape
        self.sizes.append((width, height))
        again = (
            width % WINDOW == height % WINDOW == 0 and width <= 4 * WINDOW and len(self.sizes) > 1
        )
        confidence = self._again if again else self._confidence
        red = (pixels[..., 0] > 150) & (pixels[..., 1] < 100)
        found = []
        while red.any():
            y, x = (int(v) for v in np.argwhere(red)[0])
            right = x + int(np.argmin(np.append(red[y, x:], False)))
            down = y + int(np.argmin(np.append(red[y:, x], False)))
            red[max(0, y - 2) : down + 2, max(0, x - 2) : right + 2] = False
            if min(right - x, down - y) >= self._seen_from and confidence >= least:
                found.append(row(x, y, right, down, confidence))
        return np.asarray(found, np.float32).reshape(-1, COLUMNS)

    @property
    def wholes(self) -> Sizes:
        """Sizes of the looks at whole pictures, not at cut-outs."""
        return [size for size in self.sizes if size[0] % WINDOW or size[1] % WINDOW]


def row(left: float, top: float, right: float, bottom: float, confidence: float) -> list[float]:
    x, y, unit = (left + right) / 2, (top + bottom) / 2, (right - left) / 4
    points = (x - unit, y - unit, x + unit, y - unit, x, y, x - unit, y + unit, x + unit, y + unit)
    return [left, top, right, bottom, confidence, *points]


def painted(*squares: tuple[int, int, int], size: tuple[int, int] = (1600, 1000)) -> Image.Image:
    picture = Image.new("RGB", size, "white")
    for x, y, side in squares:
        ImageDraw.Draw(picture).rectangle((x, y, x + side - 1, y + side - 1), (200, 0, 0))
    return picture


def test_a_large_face_takes_one_coarse_look() -> None:
    look = RedLook()
    detection = Detector(look).detect(painted((400, 300, 300)))
    assert look.sizes == [(COARSE_SIDE, 320)]
    assert detection.complete
    assert detection.faces[0, :4] == pytest.approx([400, 300, 700, 600], abs=4)


def test_a_small_face_makes_the_detector_look_for_smaller_ones() -> None:
    look = RedLook()
    detection = Detector(look).detect(painted((400, 300, 80), (900, 500, 36)))
    assert look.sizes == [(COARSE_SIDE, 320), (1600, 1000)]
    assert len(detection.faces) == 2


def test_more_pixels_are_asked_for_only_where_a_finer_look_needs_them() -> None:
    asked = []

    def finer() -> Image.Image:
        asked.append(True)
        return painted((400, 300, 80), (900, 500, 36))

    coarse = painted((200, 150, 150), size=(800, 500))
    assert len(Detector(RedLook()).detect(coarse, finer=finer).faces) == 1
    assert not asked
    small = painted((200, 150, 40), size=(800, 500))
    detection = Detector(RedLook()).detect(small, finer=finer)
    assert asked == [True]
    assert sorted(detection.faces[:, 0]) == pytest.approx([200, 450], abs=3)


def test_min_face_spares_the_finer_look() -> None:
    look = RedLook()
    assert len(Detector(look).detect(painted((400, 300, 80)), min_face=0.08).faces) == 1
    assert look.sizes == [(COARSE_SIDE, 320)]
    look = RedLook()
    Detector(look).detect(painted((400, 300, 80)), min_face=0.04)
    assert look.sizes[-1] == (960, 600)
    look = RedLook()
    Detector(look).detect(painted(size=(2090, 1000)))
    assert (2090, 1000) in look.sizes  # a tenth larger than the look needs: not worth resizing


def test_min_face_makes_the_detector_look_for_small_faces_beside_a_large_one() -> None:
    picture = painted((400, 300, 300), (900, 500, 36))
    look = RedLook()
    assert len(Detector(look).detect(picture).faces) == 1
    assert look.sizes == [(COARSE_SIDE, 320)]
    assert len(Detector(RedLook()).detect(picture, min_face=0.02).faces) == 2


class TurnedLook:
    """Is nearly sure of a large thing in a picture that stands upright, and sure of a small one."""

    def __init__(self, again: float) -> None:
        self._again = again

    def __call__(
        self, pixels: npt.NDArray[np.uint8], least: float, levels: tuple[int, ...] = ()
    ) -> Faces:
        height, width, _ = pixels.shape
        if (height, width) == (WINDOW, WINDOW):
            found = [row(32, 32, 96, 96, self._again)]
        elif (height, width) == (384, 240):
            found = [row(100, 100, 200, 200, 0.6)]
        elif width == 1600:
            found = [row(900, 500, 936, 536, 1.0)]
        else:
            found = []
        return np.asarray(found, np.float32).reshape(-1, COLUMNS)


def test_a_doubtful_turned_face_does_not_hide_a_small_upright_one() -> None:
    picture = painted()
    (small,) = Detector(TurnedLook(0.92)).detect(picture).faces
    assert small[:4] == pytest.approx([900, 500, 936, 536], abs=1)
    (large,) = Detector(TurnedLook(0.99)).detect(picture).faces
    assert large[2] - large[0] > 300


def test_a_doubtful_face_is_one_if_the_second_look_says_so() -> None:
    for again, count in ((0.95, 1), (0.1, 0)):
        look = RedLook(confidence=0.3, again=again)
        detection = Detector(look).detect(painted((400, 300, 300)), min_face=0.1)
        assert look.sizes[1] == (WINDOW, WINDOW)
        assert len(detection.faces) == count


def test_the_work_has_a_bound_and_what_it_leaves_out_is_said() -> None:
    squares = [(20 + 100 * (n % 15), 20 + 100 * (n // 15), 80) for n in range(120)]
    picture = painted(*squares, size=(1600, 1000))
    look = RedLook(confidence=0.3)
    detection = Detector(look).detect(picture)
    pixels = sum(width * height for width, height in look.sizes)
    assert pixels < 20 * 1600 * 1000
    assert not detection.complete
    sure = Detector(RedLook(confidence=0.999)).detect(picture)
    assert len(sure.faces) == 120
    assert sure.complete


def test_a_finer_look_sees_what_the_coarse_one_left() -> None:
    class CoarselyUnsure(RedLook):
        def __call__(
            self, pixels: npt.NDArray[np.uint8], least: float, levels: tuple[int, ...] = ()
        ) -> Faces:
            found = super().__call__(pixels, least, levels)
            if pixels.shape[1] <= COARSE_SIDE:
                found[:, 4] = 0.3
            return found

    squares = [(20 + 100 * (n % 15), 20 + 100 * (n // 15), 80) for n in range(120)]
    detection = Detector(CoarselyUnsure()).detect(painted(*squares))
    assert len(detection.faces) == 120
    assert detection.complete


def test_a_picture_without_faces_is_looked_at_turned_and_finely() -> None:
    look = RedLook()
    assert len(Detector(look).detect(painted()).faces) == 0
    assert {(w > h, max(w, h)) for w, h in look.wholes} == {
        (True, 512), (True, 384), (False, 384), (True, 1600), (True, 1200), (False, 1200),
    }  # fmt: skip
    look = RedLook()
    Detector(look).detect(painted(size=(400, 300)))
    assert max(max(size) for size in look.sizes) <= 400


@pytest.mark.parametrize("size", [(36, 55), (24, 24), (250, 100)])
def test_a_small_picture_is_enlarged_and_looked_at_with_a_border(size: tuple[int, int]) -> None:
    look = RedLook(confidence=0.6, again=0.0)
    side = min(size)
    detection = Detector(look).detect(painted((0, 0, side), size=size))
    assert max(look.sizes[0]) == 256 + 2 * 64
    assert detection.faces[0, :4] == pytest.approx([0, 0, side, side], abs=2)
