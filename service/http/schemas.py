"""The bodies of the API, as its document describes them.

Answers are built as plain dictionaries (`service.predict`) and not passed through these classes,
which would cost more time than the rest of the HTTP path; a test holds real answers against them.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

_EXAMPLE_PREDICTION: dict[str, Any] = {
    "faces": [
        {
            "box": {"x": 0, "y": 0, "width": 256, "height": 256},
            "emotion": "happiness",
            "confidence": 0.93,
            "probabilities": {
                "anger": 0.01,
                "disgust": 0.0,
                "fear": 0.01,
                "happiness": 0.93,
                "sadness": 0.01,
                "surprise": 0.02,
                "neutral": 0.02,
            },
        }
    ],
    "image": {"width": 256, "height": 256},
    "model": {"name": "attention-fer-fer2013", "version": "1"},
    "timing": {"decode_ms": 0.6, "queue_ms": 0.1, "inference_ms": 7.2, "total_ms": 8.1},
}
_EXAMPLE_PROBLEM: dict[str, Any] = {
    "type": "urn:attention-fer:problem:bad_image",
    "title": "The image cannot be read",
    "status": 400,
    "detail": "The image is damaged or incomplete; check that it opens in a viewer.",
    "code": "bad_image",
    "instance": "urn:attention-fer:request:6f1d0c2b9a3e4d58",
}

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Milliseconds = Annotated[float, Field(ge=0.0)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Box(_Body):
    """Where a face is, in pixels of the upright picture from its top left corner."""

    x: int = Field(ge=0)
    y: int = Field(ge=0)
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class Face(_Body):
    """One face and its emotion."""

    box: Box
    emotion: str = Field(description="The most probable emotion.")
    confidence: Probability = Field(description="Its probability.")
    probabilities: dict[str, Probability] = Field(description="Each emotion's; they sum to 1.")


class ImageSize(_Body):
    """The picture's size in pixels, upright."""

    width: int = Field(ge=1)
    height: int = Field(ge=1)


class Model(_Body):
    """Which checkpoint answered."""

    name: str
    version: str


class Timing(_Body):
    """Where the time went, in milliseconds, from the upload's last byte to the answer."""

    decode_ms: Milliseconds = Field(description="Decoding the picture and cutting out the faces.")
    queue_ms: Milliseconds = Field(description="Waiting, for a decoder and for the network.")
    inference_ms: Milliseconds = Field(description="In the network.")
    total_ms: Milliseconds


class Prediction(_Body):
    """The answer for one picture."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"example": _EXAMPLE_PREDICTION}
    )

    faces: list[Face]
    image: ImageSize
    model: Model
    timing: Timing


class Problem(_Body):
    """What went wrong, after RFC 9457."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"example": _EXAMPLE_PROBLEM}
    )

    type: str = Field(description="Names the kind of problem, one to one with `code`.")
    title: str = Field(description="The kind of problem, the same every time.")
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What was wrong this time and what to do.")
    code: str = Field(description="Stable name of the kind, for programs.")
    instance: str | None = Field(
        description="Names the request, as the header X-Request-ID and the service's log do."
    )


class BatchPrediction(_Body):
    """The answers for several pictures."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"example": {"results": [_EXAMPLE_PREDICTION, _EXAMPLE_PROBLEM]}},
    )

    results: list[Prediction | Problem] = Field(
        description="For each picture, in the order sent, its answer or its problem."
    )


class Health(_Body):
    """How the service is."""

    status: str
