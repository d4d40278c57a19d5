"""The options of the search for faces in a picture."""

from dataclasses import dataclass
from typing import Final, Literal

Detect = Literal["auto", "always", "never"]

CROP_SIDE = 112
"""A nearly square picture with a side of at most this many pixels is taken for a crop."""
_NEARLY_SQUARE = 1.25

MAX_FACES = 256
"""Most faces of one picture that anybody may ask for."""

MIN_FACE = 0.02
"""The smallest face that anybody may ask for, as a share of a picture's long side."""
SEARCHED_SIDE = 960
"""A JPEG in which faces are looked for keeps at least this long side, if it has it."""
FINEST_SIDE = 1920
"""For a finer look it is decoded again, with at least this one."""
NEARLY = 1.1
"""A picture that is larger than a look needs by at most this factor is not resized for it."""


@dataclass(frozen=True)
class FaceSearch:
    """What a request asks for.

    Attributes:
        detect: "always" looks for faces. "never" takes the whole picture for one. "auto" takes
            small, nearly square pictures for one, because they are crops already and the detector
            misses some of them, and looks for faces in all others.
        max_faces: Most faces of a picture that are answered, the largest first; 1 or more.
        min_face: The smallest face searched for, as a share of the picture's long side, above 0.
            None searches for faces from `MIN_FACE`, but takes the finer look that small faces
            need only where the coarse look finds nothing or a small face.
        detail: Long side that a decoded JPEG keeps at least, in pixels, if it has it.
    """

    detect: Detect = "auto"
    max_faces: int = 64
    min_face: float | None = None
    detail: int = SEARCHED_SIDE

    def looks_in(self, width: int, height: int) -> bool:
        """Tell whether faces are looked for in a picture of this size, in pixels."""
        if self.detect != "auto":
            return self.detect == "always"
        small, large = sorted((width, height))
        return small > CROP_SIDE or large > _NEARLY_SQUARE * small


NO_SEARCH: Final = FaceSearch("never")
"""The whole picture is the face."""


def shrinking(longest: float) -> float:
    """Return the scale of the copy that faces are looked for in, above 0 and at most 1.

    Args:
        longest: The longer side of what was decoded, in pixels.
    """
    return FINEST_SIDE / longest if longest > NEARLY * FINEST_SIDE else 1.0
