"""What the service answers, typed."""

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
        emotion: The most probable emotion.
        confidence: Its probability, 0 to 1.
        probabilities: Of every emotion, 0 to 1.
    """

    box: Box
    emotion: str
    confidence: float
    probabilities: Mapping[str, float]


@dataclass(frozen=True)
class Prediction:
    """The answer for one picture.

    Attributes:
        faces: The faces in it.
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


def read_prediction(body: Mapping[str, Any]) -> Prediction:
    """Read the body of a 200 of /predict.

    Raises:
        KeyError, TypeError: It is not one.
    """
    faces = tuple(
        Face(Box(**face["box"]), face["emotion"], face["confidence"], face["probabilities"])
        for face in body["faces"]
    )
    size = body["image"]
    return Prediction(faces, size["width"], size["height"], body["model"], body["timing"])
