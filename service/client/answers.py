"""What the service answers, typed."""

import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Failure(Exception):  # noqa: N818 - an answer, not only an error of the caller's
    """The service refused, or could not be reached.

    Attributes:
        code: The problem's stable code, e.g. "bad_image"; "unreachable" where there was no answer.
        status: HTTP status; 0 where there was no answer.
        detail: What was wrong and what to do, for people.
    """

    def __init__(self, code: str, status: int, detail: str) -> None:
        """Say what happened."""
        super().__init__(f"{detail} ({code})")
        self.code = code
        self.status = status
        self.detail = detail


@dataclass(frozen=True)
class Box:
    """Where a face is in the upright picture, in pixels from its top left corner."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class Face:
    """One face.

    Attributes:
        box: Where it is.
        detection: How sure it is that this is a face, 0 to 1; None where nobody looked and the
            whole picture was taken for one.
        emotion: The most probable emotion.
        confidence: Its probability, 0 to 1.
        probabilities: Of every emotion, 0 to 1.
    """

    box: Box
    detection: float | None
    emotion: str
    confidence: float
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture.

    Attributes:
        faces: The faces in it, the largest first; empty where none was found.
        width: Of the upright picture, in pixels.
        height: Likewise.
        model: Name and version of the model that answered.
        timing: Milliseconds by stage.
    """

    faces: tuple[Face, ...]
    width: int
    height: int
    model: Mapping[str, str]
    timing: Mapping[str, float]


@dataclass(frozen=True)
class ExplainedFace:
    """One face, and what its emotion was read from. Pictures are the bytes of PNGs.

    Attributes:
        face: As in a `Prediction`.
        straightening: How the network turned, scaled and shifted it: `angle_deg`, `scale`,
            `shift_x` and `shift_y`.
        straightened: What the network saw after that.
        attention: Where it looked.
        evidence: What spoke for the emotion.
    """

    face: Face
    straightening: Mapping[str, float]
    straightened: bytes
    attention: bytes
    evidence: bytes


@dataclass(frozen=True)
class Explanation:
    """The answer for one picture, and what it was read from.

    Attributes:
        prediction: As without the explanation.
        faces: Its faces, in the same order.
        overlay: PNG of the picture with boxes, labels and evidence on it.
    """

    prediction: Prediction
    faces: tuple[ExplainedFace, ...]
    overlay: bytes


def read_prediction(body: Mapping[str, Any]) -> Prediction:
    """Read the body of a 200 of /predict.

    Raises:
        KeyError, TypeError: It is not one.
    """
    faces = tuple(map(_read_face, body["faces"]))
    size = body["image"]
    return Prediction(faces, size["width"], size["height"], body["model"], body["timing"])


def read_explanation(body: Mapping[str, Any]) -> Explanation:
    """Read the body of a 200 of /explain.

    Raises:
        KeyError, TypeError, ValueError: It is not one.
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
    return Face(box, detection, face["emotion"], face["confidence"], face["probabilities"])


def _png(url: str) -> bytes:
    """Return what a data URL holds."""
    return binascii.a2b_base64(url.removeprefix("data:image/png;base64,"), strict_mode=True)
