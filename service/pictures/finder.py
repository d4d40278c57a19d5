"""From the bytes of a picture to the faces in it; all of it in whichever thread asks.

Not its duty: choosing the thread (`pool`).
"""

from dataclasses import dataclass

from service.errors import NoDetector
from service.pictures.cost import Cost
from service.pictures.decode import Picture, decode, weigh
from service.pictures.detector import Detector
from service.pictures.faces import Face, find_faces, whole_picture
from service.pictures.search import NO_SEARCH, FaceSearch
from training.model.manifest import InputSpec


@dataclass(frozen=True)
class Found:
    """A picture and the faces in it, the largest first."""

    picture: Picture
    faces: list[Face]


class FaceFinder:
    """Decodes pictures and cuts out their faces; any thread may call it."""

    def __init__(self, spec: InputSpec, max_pixels: int, detector: Detector | None) -> None:
        """Join the parts.

        Args:
            spec: The faces that the checkpoint was trained on.
            max_pixels: Most pixels of a picture.
            detector: Finds faces; without one every picture is a face.
        """
        self._spec, self._max_pixels, self._detector = spec, max_pixels, detector

    def weigh(self, image: bytes | bytearray, search: FaceSearch) -> Cost:
        """Say what `find` will take of the decoder.

        Args:
            image: The picture's bytes.
            search: Which faces are wanted.

        Raises:
            ServiceError: Any kind that `find` raises before it decodes.
        """
        if self._detector is None:
            search = NO_SEARCH
        return weigh(image, self._spec, self._max_pixels, search)

    def find(self, image: bytes | bytearray, search: FaceSearch) -> Found:
        """Decode a picture and find its faces.

        Args:
            image: The picture's bytes.
            search: Which faces are wanted.

        Raises:
            NoDetector: Faces are to be looked for, whatever the picture, and nothing can.
            ServiceError: Any kind that `decode` raises.
        """
        if self._detector is None:
            if search.detect == "always":
                raise NoDetector("This service has no face detector; send crops without detect.")
            search = NO_SEARCH
        picture = decode(image, self._spec, self._max_pixels, search)
        if self._detector is None:
            return Found(picture, [whole_picture(picture, self._spec)])
        return Found(picture, find_faces(picture, self._spec, search, self._detector))
