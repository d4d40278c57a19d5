"""Where the faces of a picture are.

One look at the picture shrunk to `COARSE_SIDE` finds large faces, one at `FINE_SIDE` small ones,
and where neither finds any, one from a distance finds a face that fills the whole picture. What
they are unsure of is looked at again, cut out. Not its duty: decoding, or cutting the crops that
the network takes.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from service.pictures.blazeface import MULTIPLE, BlazeFace
from service.pictures.boxes import Boxes, merge, overlaps, without_parts

FINE_SIDE = 512
"""Long side of the largest picture that is looked at; a smaller one is looked at as it is."""
COARSE_SIDE, CLOSE_SIDE = 128, 64
# A picture that one face fills, as a crop is, is best seen at this side with black around it.
_FAR_SIDE = 80


@dataclass(frozen=True)
class Rules:
    """What counts as a face. The defaults were chosen on collages (docs/decisions/0007).

    Attributes:
        confidence: Least confidence of a face, 0 to 1.
        doubt: Least confidence of what is looked at again, 0 to 1.
        certain: Confidence from which nothing is looked at again, 0 to 1.
        second_looks: Most places looked at again in a picture; the most confident go first.
        overlap: Intersection over union from which two boxes are one face, 0 to 1.
    """

    confidence: float = 0.7
    doubt: float = 0.5
    certain: float = 0.9
    second_looks: int = 8
    overlap: float = 0.3


class Detector:
    """Finds faces; any thread may call it."""

    def __init__(self, model: BlazeFace, rules: Rules = Rules()) -> None:
        """Look with `model`, and believe it by `rules`."""
        self._model, self._rules = model, rules

    def detect(self, picture: Image.Image) -> Boxes:
        """Find the faces of an upright picture.

        Args:
            picture: Of mode RGB, at most `FINE_SIDE` long. Colour finds smaller faces than grey.

        Returns:
            The faces in pixels of `picture`, which they may leave; most confident first.
        """
        rules = self._rules
        found = self._look(picture, COARSE_SIDE, rules.doubt)
        if max(picture.size) > COARSE_SIDE:
            fine = self._look(picture, FINE_SIDE, rules.doubt)
            found = merge(np.concatenate([found, fine]), rules.overlap)
        faces = self._look_again(picture, without_parts(found))
        if not len(faces):
            faces = self._look(picture, _FAR_SIDE, rules.confidence)
        return without_parts(merge(faces, rules.overlap))

    def _look(self, picture: Image.Image, side: int, least: float) -> Boxes:
        """Return what is seen with the picture's long side at `side`."""
        small = _fit(picture, side)
        width, height = (math.ceil(length / MULTIPLE) * MULTIPLE for length in small.size)
        if side <= COARSE_SIDE:
            width = height = COARSE_SIDE
        boxes = self._model.look(small, width, height, least)
        boxes[:, :4] *= picture.width / small.width
        return merge(boxes, self._rules.overlap)

    def _look_again(self, picture: Image.Image, found: Boxes) -> Boxes:
        certain = found[:, 4] >= self._rules.certain
        doubtful = found[~certain][: self._rules.second_looks]
        again = [self._second_look(picture, box) for box in doubtful]
        return np.concatenate([found[certain], *again])

    def _second_look(self, picture: Image.Image, box: Boxes) -> Boxes:
        """Return the face at `box` as a cut-out twice its size shows it: float32[0 or 1, 5]."""
        side = 2 * float(np.max(box[2:4] - box[:2]))
        corner = (box[:2] + box[2:4]) / 2 - side / 2
        extent = (*corner.tolist(), *(corner + side).tolist())
        close = picture.transform(
            (CLOSE_SIDE, CLOSE_SIDE), Image.Transform.EXTENT, extent, Image.Resampling.BILINEAR
        )
        seen = self._model.look(close, CLOSE_SIDE, CLOSE_SIDE, self._rules.confidence)
        seen = merge(seen, self._rules.overlap)
        seen[:, :4] = seen[:, :4] * (side / CLOSE_SIDE) + np.tile(corner, 2)
        return seen[overlaps(box, seen) >= self._rules.overlap][:1]


def _fit(picture: Image.Image, side: int) -> Image.Image:
    """Return the picture with its long side at `side`; only the coarse look enlarges."""
    scale = side / max(picture.size)
    if scale == 1 or (scale > 1 and side > COARSE_SIDE):
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.0)
