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
"""The smallest face that is searched for by default, as a share of a picture's long side."""
SEARCHED_SIDE = 960
"""A JPEG in which faces are looked for keeps at least this long side, if it has it."""
FINEST_SIDE = 1920
"""Where that leaves doubt it is decoded anew, with this one."""


@dataclass(frozen=True)
class FaceSearch:
    """What a request asks for.

    Attributes:
        detect: "always" looks for faces, "never" takes the whole picture for one, and "auto" does
            that with small, nearly square pictures: they are crops already, and the detector finds
            only some of the faces that fill so few pixels.
        max_faces: Most faces of a picture that are answered, the largest first; 1 or more.
        min_face: The smallest face searched for, as a share of the picture's long side, above 0:
            the larger, the less time a picture takes that is doubtful.
        detail: Long side that a decoded JPEG keeps at least, in pixels, if it has it.
    """

    detect: Detect = "auto"
    max_faces: int = 64
    min_face: float = MIN_FACE
    detail: int = SEARCHED_SIDE

    def looks_in(self, width: int, height: int) -> bool:
        """Tell whether faces are looked for in a picture of this size, in pixels."""
        if self.detect != "auto":
            return self.detect == "always"
        small, large = sorted((width, height))
        return small > CROP_SIDE or large > _NEARLY_SQUARE * small


NO_SEARCH: Final = FaceSearch("never")
"""The whole picture is the face."""
