"""The bodies of the API, for the OpenAPI document.

Answers are built as plain dictionaries (`service.http.bodies`): validating them with these classes
would take longer than the rest of the HTTP path. A test validates real answers instead.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from service.pictures.quality import BRIGHTEST, DARKEST, LEAST_SHARPNESS, LEAST_SIZE

_EXAMPLE_PREDICTION: dict[str, Any] = {
    "faces": [
        {
            "box": {"x": 120, "y": 44, "width": 208, "height": 208},
            "detection": 0.97,
            "landmarks": {
                "left_eye": {"x": 186.2, "y": 122.9},
                "right_eye": {"x": 263.0, "y": 120.4},
                "nose": {"x": 226.7, "y": 170.1},
                "mouth_left": {"x": 192.3, "y": 205.8},
                "mouth_right": {"x": 259.4, "y": 203.5},
            },
            "roll": -1.9,
            "quality": {"size": 208.0, "sharpness": 0.21, "brightness": 0.48, "usable": True},
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
    "faces_found": 1,
    "truncated": False,
    "image": {"width": 512, "height": 512},
    "model": {"name": "attention-fer-fer2013", "version": "1", "prior": "balanced"},
    "timing": {"decode_ms": 0.6, "queue_ms": 0.1, "inference_ms": 7.2, "total_ms": 8.1},
}
_EXAMPLE_PNG = "data:image/png;base64,iVBORw0KGgo="
_EXAMPLE_EXPLANATION: dict[str, Any] = _EXAMPLE_PREDICTION | {
    "faces": [
        face
        | {"straightening": {"angle_deg": -3.1, "scale": 1.17, "shift_x": 0.01, "shift_y": -0.07}}
        | dict.fromkeys(("straightened", "attention", "evidence"), _EXAMPLE_PNG)
        for face in _EXAMPLE_PREDICTION["faces"]
    ],
    "timing": _EXAMPLE_PREDICTION["timing"] | {"draw_ms": 30.4, "total_ms": 54.9},
    "overlay": _EXAMPLE_PNG,
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
PngUrl = Annotated[str, Field(pattern="^data:image/png;base64,[A-Za-z0-9+/]+={0,2}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Box(_Body):
    """The position of a face, in pixels of the upright picture from its top left corner."""

    x: int = Field(ge=0)
    y: int = Field(ge=0)
    width: int = Field(ge=1)
    height: int = Field(ge=1)


class Point(_Body):
    """A point of the upright picture, in pixels from its top left corner; it may be outside."""

    x: float
    y: float


class Landmarks(_Body):
    """Five points of a face. Left and right are the picture's, of the face turned upright."""

    left_eye: Point
    right_eye: Point
    nose: Point
    mouth_left: Point
    mouth_right: Point


class Quality(_Body):
    """The image quality of a face."""

    size: float = Field(ge=0.0, description="Longer side of the face, in pixels.")
    sharpness: float = Field(
        ge=0.0,
        description="Detail as a share of contrast: 0.1 to 0.4 in photographs.",
    )
    brightness: Probability = Field(description="Mean grey level of the face, 0 to 1.")
    usable: bool = Field(
        description=(
            f"Whether size is at least {LEAST_SIZE:g}, sharpness at least {LEAST_SHARPNESS:g} and "
            f"brightness from {DARKEST:g} to {BRIGHTEST:g}."
        )
    )


class Face(_Body):
    """One face and its emotion."""

    box: Box
    detection: Probability | None = Field(
        description="Probability that this is a face; null if the whole picture was taken as one."
    )
    landmarks: Landmarks | None = Field(
        description="Null if the whole picture was taken as a face."
    )
    roll: float | None = Field(
        description="Rotation of the face, clockwise in degrees, -180 to 180; null likewise."
    )
    quality: Quality | None = Field(description="Null if the whole picture was taken as a face.")
    emotion: str = Field(description="The most probable emotion.")
    confidence: Probability = Field(description="Its probability.")
    probabilities: dict[str, Probability] = Field(
        description="The probability of each emotion; they sum to 1."
    )


class ImageSize(_Body):
    """The picture's size in pixels, upright."""

    width: int = Field(ge=1)
    height: int = Field(ge=1)


class Model(_Body):
    """Which checkpoint answered, and under which prior."""

    name: str
    version: str
    prior: str = Field(
        description="How frequent each emotion was taken to be; as in the query `prior`."
    )


class Timing(_Body):
    """The time of each stage, in milliseconds, from the upload's last byte to the answer."""

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
    faces_found: int = Field(
        ge=0, description="How many faces the picture has; `faces` has at most `max_faces`."
    )
    truncated: bool = Field(
        description=(
            "Whether faces may be missing: more were found than asked for, or the picture has more "
            "doubtful places than a search examines."
        )
    )
    image: ImageSize
    model: Model
    timing: Timing


class Straightening(_Body):
    """How a face was aligned: shifted, then rotated and scaled about the crop's centre."""

    angle_deg: float = Field(description="Rotation in degrees, clockwise.")
    scale: float = Field(gt=0.0, description="Factor by which it was enlarged.")
    shift_x: float = Field(description="Shift to the right, as a share of the side.")
    shift_y: float = Field(description="Shift downwards, as a share of the side.")


class ExplainedFace(Face):
    """One face, its emotion, and the explanation of that."""

    straightening: Straightening
    straightened: PngUrl = Field(description="The face after the network's spatial transformer.")
    attention: PngUrl = Field(
        description="The crop, coloured by the weights of a spatial attention (Viridis)."
    )
    evidence: PngUrl = Field(
        description="The crop, coloured by the evidence for the emotion (LayerCAM; Inferno)."
    )


class ExplanationTiming(Timing):
    """The time of each stage, in milliseconds."""

    draw_ms: Milliseconds = Field(description="Drawing.")


class Explanation(_Body):
    """The answer for one picture, with explanations."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"example": _EXAMPLE_EXPLANATION}
    )

    faces: list[ExplainedFace] = Field(max_length=16)
    faces_found: int = Field(ge=0, description="How many faces the picture has.")
    truncated: bool = Field(description="Whether faces may be missing.")
    image: ImageSize
    model: Model
    timing: ExplanationTiming
    overlay: PngUrl = Field(
        description="The picture, its long side 512 to 1024 pixels, with boxes, labels, evidence."
    )


class Problem(_Body):
    """What went wrong, after RFC 9457."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"example": _EXAMPLE_PROBLEM}
    )

    type: str = Field(description="The kind of problem as a URN; it corresponds to `code`.")
    title: str = Field(description="The kind of problem, in words.")
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What was wrong with this request, and what to do.")
    code: str = Field(description="The kind of problem for programs; it does not change.")
    instance: str | None = Field(
        description="The request's id, as in the header X-Request-ID and in the service's log."
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
    """The state of the service."""

    status: str
