"""The service's answers as dataclasses."""

import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Failure(Exception):  # noqa: N818 - an answer, not only an error of the caller's
    """The service returned an error, or could not be reached.

    Attributes:
        code: The problem's stable code, e.g. "bad_image"; "unreachable" where there was no answer.
        status: HTTP status; 0 where there was no answer.
        detail: What was wrong and what to do, in words.
    """

    def __init__(self, code: str, status: int, detail: str) -> None:
        """Create the error."""
        super().__init__(f"{detail} ({code})")
        self.code = code
        self.status = status
        self.detail = detail


@dataclass(frozen=True)
class Box:
    """A face's box in the upright picture, in pixels from the top left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Face:
    """One face.

    Attributes:
        box: Its position.
        detection: The detector's score, 0 to 1; None without a search, if the whole picture was
            taken as the face.
        emotion: The most probable emotion.
        confidence: Its probability, 0 to 1.
        probabilities: Of every emotion, 0 to 1.
        landmarks: x and y of eyes, nose and corners of the mouth, by name, in pixels; empty
            without a search.
        roll: Degrees by which the face is turned clockwise; None without a search.
        quality: `size`, `sharpness`, `brightness` and `usable`; None without a search.
    """

    box: Box
    detection: float | None
    emotion: str
    confidence: float
    probabilities: Mapping[str, float]
    landmarks: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    roll: float | None = None
    quality: Mapping[str, float | bool] | None = None


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture.

    Attributes:
        faces: The faces in it, the largest first; empty if none was found.
        width: Of the upright picture, in pixels.
        height: Of the upright picture, in pixels.
        model: `name` and `version` of the model that answered, and the `prior` it was asked under.
        timing: Milliseconds by stage.
        faces_found: How many faces the picture has; None where the service does not say.
        truncated: Whether faces may be missing from `faces`.
    """

    faces: tuple[Face, ...]
    width: int
    height: int
    model: Mapping[str, str]
    timing: Mapping[str, float]
    faces_found: int | None = None
    truncated: bool = False


@dataclass(frozen=True)
class ExplainedFace:
    """One face with its explanation. Pictures are the bytes of PNGs.

    Attributes:
        face: As in a `Prediction`.
        straightening: How the network turned, scaled and shifted it: `angle_deg`, `scale`,
            `shift_x` and `shift_y`.
        straightened: The crop after that transform.
        attention: The attention map.
        evidence: The evidence for the emotion.
    """

    face: Face
    straightening: Mapping[str, float]
    straightened: bytes
    attention: bytes
    evidence: bytes


@dataclass(frozen=True)
class Explanation:
    """The answer for one picture, with its explanation.

    Attributes:
        prediction: As without an explanation.
        faces: Its faces, in the same order.
        overlay: PNG of the picture with boxes, labels and evidence.
    """

    prediction: Prediction
    faces: tuple[ExplainedFace, ...]
    overlay: bytes


def read_prediction(body: Mapping[str, Any]) -> Prediction:
    """Parse the body of a successful answer of /predict.

    Raises:
        KeyError, TypeError: The body has another form.
    """
    faces = tuple(map(_read_face, body["faces"]))
    size = body["image"]
    cap = body.get("faces_found"), body.get("truncated", False)
    return Prediction(faces, size["width"], size["height"], body["model"], body["timing"], *cap)


def read_explanation(body: Mapping[str, Any]) -> Explanation:
    """Parse the body of a successful answer of /explain.

    Raises:
        KeyError, TypeError, ValueError: The body has another form.
    """
    faces = tuple(
        ExplainedFace(
            _read_face(face),
            face["straightening"],
            *(_png(face[name]) for name in ("straightened", "attention", "evidence")),
        )
        for face in body["faces"]
    )
    return Explanation(read_prediction(body), faces, _png(body["overlay"]))


def _read_face(face: Mapping[str, Any]) -> Face:
    box, detection = Box(**face["box"]), face.get("detection")
    points = {name: (at["x"], at["y"]) for name, at in (face.get("landmarks") or {}).items()}
    named = face["emotion"], face["confidence"], face["probabilities"]
    return Face(box, detection, *named, points, face.get("roll"), face.get("quality"))


def _png(url: str) -> bytes:
    """Return the bytes of a data URL."""
    return binascii.a2b_base64(url.removeprefix("data:image/png;base64,"), strict_mode=True)
