"""Decodes a picture and finds its faces, in the calling thread."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from service.errors import NoDetector
from service.pictures.boxes import moved, sides
from service.pictures.cost import Cost
from service.pictures.decode import Picture, decode, weigh
from service.pictures.detector import Detector
from service.pictures.faces import Face, can_show_face, cut_faces, whole_picture
from service.pictures.search import FINEST_SIDE, NO_SEARCH, FaceSearch
from training.model.manifest import InputSpec


@dataclass(frozen=True)
class Found:
    """A picture and the faces in it.

    Attributes:
        picture: As it was decoded for the faces.
        faces: The largest first.
        faces_found: How many there are; `faces` has at most as many as were asked for.
        complete: Whether every place that might be a face got its second look. The number of
            second looks is bounded by the picture's pixels.
    """

    picture: Picture
    faces: list[Face]
    faces_found: int
    complete: bool = True

    @property
    def truncated(self) -> bool:
        """Whether faces may be missing that the picture has: because of a cap, or of a cut file."""
        return not self.complete or self.picture.cut or self.faces_found > len(self.faces)


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
        if self._detector is None or picture.colour is None:
            face = whole_picture(picture, self._spec)
            return Found(picture, [face], 1) if can_show_face(face) else Found(picture, [], 0)
        views = [picture]

        def finer() -> Image.Image:
            if _has_more(picture):
                detailed = replace(search, detail=FINEST_SIDE)
                views.append(decode(image, self._spec, self._max_pixels, detailed))
            return views[-1].colour or picture.colour  # type: ignore[return-value]

        detection = self._detector.detect(picture.colour, search.min_face, finer)
        scale = picture.width / picture.colour.width
        found = moved(detection.faces, scale, 0, 0)
        largest = np.argsort(-sides(found), kind="stable")[: search.max_faces]
        faces = cut_faces(views[-1], self._spec, found[largest])
        return Found(views[-1], faces, len(found), detection.complete)


def _has_more(picture: Picture) -> bool:
    """Tell whether a finer look would find more pixels in the file than were decoded."""
    rows, columns = picture.grey.shape
    return bool(columns < picture.width and max(rows, columns) < FINEST_SIDE)
