"""Finds the faces of a picture.

A look is one pass of the network over the picture at some size. The first look is coarse: it costs
little and finds the faces of a portrait or a group. A finer look follows where the coarse one finds
nothing, or a small face. Where neither finds a face, the picture is turned by 90, 180 and 270
degrees. A face with a low confidence is cut out and looked at a second time (`second_look`). The
work is bounded by the picture's pixels, not by the number of faces.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from service.pictures.boxes import (
    CONFIDENCE,
    Faces,
    most_confident,
    most_turned,
    moved,
    sides,
    turned,
    without_parts,
)
from service.pictures.search import MIN_FACE, NEARLY
from service.pictures.second_look import WINDOW, Look, look_again

COARSE_SIDE = 512
"""Long side of the first look; a picture below `_NEAR_SIDE` is enlarged to that."""
_NEAR_SIDE, _NEAR_BORDER = 256, 64
# A look finds nearly every face from this many of its pixels. The finest look is as large as the
# smallest face that is searched for needs.
_SEEN_FROM = 38.4
# Where the coarse look finds a face below this many pixels, there may be smaller ones beside it.
_SMALL = 32
_TURNED_SIDE = 384
_ALL, _LARGE = (0, 1, 2), (1, 2)  # levels of a look
_GREY = (128, 128, 128)


@dataclass(frozen=True)
class Rules:
    """What counts as a face. The defaults were chosen on collages (docs/decisions/0007).

    Attributes:
        doubt: From this confidence on, a response gets a second look, 0 to 1.
        certain: From this confidence on, it is a face without a second look, 0 to 1.
        confidence: Least confidence of a face in its second look, 0 to 1.
        likely: Least confidence of a face that gets no second look, because the picture has more
            of them than may be looked at, 0 to 1.
        filling: `certain` for a face that fills the picture. A second look would see no more around
            it than the first did.
        turned_doubt: `doubt` in a picture that was turned to see whether its faces are.
        turned: `confidence` in such a picture. It is higher, because many things look like a
            face in one of three turns.
        overlap: Intersection over union from which two boxes are one face, 0 to 1.
    """

    doubt: float = 0.07
    certain: float = 0.99
    confidence: float = 0.9
    likely: float = 0.7
    filling: float = 0.5
    turned_doubt: float = 0.5
    turned: float = 0.97
    overlap: float = 0.4


@dataclass(frozen=True)
class Detection:
    """What was found.

    Attributes:
        faces: In pixels of the picture that was given, which they may leave.
        complete: Whether every place that might be a face got its second look. The number of
            second looks is bounded by the picture's pixels.
    """

    faces: Faces
    complete: bool = True


class Detector:
    """Finds faces; any thread may call it."""

    def __init__(self, look: Look, rules: Rules = Rules()) -> None:
        """Look with `look`, from any thread, and believe it by `rules`."""
        self._look, self._rules = look, rules
        self._filling = replace(rules, certain=rules.filling)
        self._strict = replace(rules, doubt=rules.turned_doubt, confidence=rules.turned)

    def detect(
        self,
        picture: Image.Image,
        min_face: float | None = None,
        finer: Callable[[], Image.Image] | None = None,
    ) -> Detection:
        """Find the faces of an upright picture.

        Args:
            picture: Of mode RGB.
            min_face: The smallest face that is searched for, as a share of the long side. The
                finer look that it needs is always taken. None searches for faces from `MIN_FACE`,
                and skips the finer look where the coarse one finds large faces and no small one.
            finer: Gives the same picture with more pixels, if there are any; asked for only where
                a finer look is taken.

        Returns:
            The faces.
        """
        coarse, quarters = self._turn(picture)
        if self._settles(picture, coarse.faces, min_face):
            return coarse
        large = picture if finer is None else finer()
        fine = self._finer(large, quarters, _finest(min_face or MIN_FACE))
        moved_back = moved(fine.faces, picture.width / large.width, 0, 0)
        faces = self._distinct(np.concatenate([coarse.faces, moved_back]))
        return Detection(faces, fine.complete)  # it saw again what the coarse look left

    def _settles(self, picture: Image.Image, faces: Faces, min_face: float | None) -> bool:
        """Tell whether the coarse look leaves no reason for a finer one."""
        side = max(picture.size)
        if side <= COARSE_SIDE:
            return True
        if min_face is not None:
            return _finest(min_face) <= COARSE_SIDE
        return len(faces) > 0 and bool(sides(faces).min() * COARSE_SIDE >= _SMALL * side)

    def _turn(self, picture: Image.Image) -> tuple[Detection, int]:
        """Look coarsely, and find out by how many quarters the picture must be turned."""
        found = self._coarse(picture)
        if len(found.faces):
            quarters = most_turned(found.faces)
        else:
            found, quarters = self._turned(picture, _TURNED_SIDE)
        if quarters == 0:
            return found, 0
        again = self._view(picture, COARSE_SIDE, quarters, self._rules)
        if not len(again.faces):
            return found, 0
        faces = self._distinct(np.concatenate([again.faces, found.faces]))
        return Detection(faces, found.complete and again.complete), quarters

    def _finer(self, picture: Image.Image, quarters: int, side: int) -> Detection:
        found = self._view(picture, side, quarters, self._rules)
        if len(found.faces):
            better = most_turned(found.faces)
        elif side > 2 * COARSE_SIDE:
            found, better = self._turned(picture, side * 5 // 8)
        if not len(found.faces) or better == quarters:
            return found
        again = self._view(picture, side, better, self._rules)
        return again if len(again.faces) >= len(found.faces) else found

    def _coarse(self, picture: Image.Image) -> Detection:
        if max(picture.size) < _NEAR_SIDE:
            return self._near(picture)
        found = self._view(picture, COARSE_SIDE, 0, self._rules)
        return found if len(found.faces) else self._near(picture)

    def _near(self, picture: Image.Image) -> Detection:
        """Look from a distance, with grey around: at a face that fills the picture, or more."""
        small = _resized(picture, _NEAR_SIDE)
        size = (small.width + 2 * _NEAR_BORDER, small.height + 2 * _NEAR_BORDER)
        page = Image.new("RGB", size, _GREY)
        page.paste(small, (_NEAR_BORDER, _NEAR_BORDER))
        found = self._sure(page, page, self._filling, _LARGE)
        faces = moved(found.faces, 1, -_NEAR_BORDER, -_NEAR_BORDER)
        return Detection(moved(faces, picture.width / small.width, 0, 0), found.complete)

    def _turned(self, picture: Image.Image, side: int) -> tuple[Detection, int]:
        """Look at it turned by 90, 180 and 270 degrees, and take the one that shows most."""
        views = [self._view(picture, side, q, self._strict) for q in (1, 2, 3)]
        counts = [len(view.faces) for view in views]
        best = counts.index(max(counts))
        return views[best], 1 + best if counts[best] else 0

    def _view(self, picture: Image.Image, side: int, quarters: int, rules: Rules) -> Detection:
        """Look with the long side at most at `side`, turned by some quarters counterclockwise."""
        whole = picture.transpose(_QUARTERS[quarters]) if quarters else picture
        nearly = max(whole.size) <= NEARLY * side  # to shrink it would cost more than it saves
        small = whole if nearly else _resized(whole, side)
        found = self._sure(small, whole, rules)
        faces = moved(found.faces, whole.width / small.width, 0, 0)
        return Detection(turned(faces, quarters, picture.size), found.complete)

    def _sure(
        self, small: Image.Image, picture: Image.Image, rules: Rules, levels: tuple[int, ...] = _ALL
    ) -> Detection:
        """Return the faces of one look, in its pixels, after second looks at the doubtful ones."""
        found = most_confident(self._look(np.asarray(small), rules.doubt, levels), rules.overlap)
        certain = found[:, CONFIDENCE] >= rules.certain
        doubtful = found[~certain]
        # As many pixels as the look itself had: of more, the likeliest are believed unchecked.
        most = max(12, small.width * small.height // WINDOW**2)
        excess = max(0, len(doubtful) - most)
        likely, again = doubtful[:excess], self._again(small, picture, doubtful[excess:])
        again = again[again[:, CONFIDENCE] >= rules.confidence]
        believed = likely[likely[:, CONFIDENCE] >= rules.likely]
        faces = np.concatenate([found[certain], again, believed])
        return Detection(self._distinct(faces), len(believed) == len(likely))

    def _again(self, small: Image.Image, picture: Image.Image, doubtful: Faces) -> Faces:
        """Look again at faces of `small`: in it at large ones, in the whole picture at others."""
        scale = picture.width / small.width
        large = sides(doubtful) > 40
        seen = look_again(self._look, small, doubtful[large])
        fine = look_again(self._look, picture, moved(doubtful[~large], scale, 0, 0))
        return np.concatenate([seen, moved(fine, 1 / scale, 0, 0)])

    def _distinct(self, faces: Faces) -> Faces:
        return without_parts(most_confident(faces, self._rules.overlap))


_QUARTERS = {
    1: Image.Transpose.ROTATE_90,
    2: Image.Transpose.ROTATE_180,
    3: Image.Transpose.ROTATE_270,
}


def _finest(min_face: float) -> int:
    return round(_SEEN_FROM / min_face)


def _resized(picture: Image.Image, side: int) -> Image.Image:
    """Return the picture with its long side at `side`, or up to a tenth below."""
    factor = math.ceil(max(picture.size) / side)
    if factor > 1 and max(picture.size) / factor >= side / NEARLY:
        return picture.reduce(factor)  # a fifth of the time that resizing by 1.95 takes
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # The gap of 1 averages whole pixels first: six times faster, and no face was missed by it.
    return picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)
