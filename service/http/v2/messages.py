"""The protocol's JSON: validates requests, and describes answers for the OpenAPI document.

Optional members of the protocol that the service does not use are ignored.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.http.schemas import Problem
from service.pictures.search import MAX_FACES, MIN_FACE, Detect, FaceSearch

MODEL = "attention-fer"
VERSION = "1"
"""The version of the tensors' names and shapes; `parameters` name the checkpoint."""

Size = Annotated[int, Field(ge=0, le=1 << 53)]
Scalar = bool | int | float | str


class _Message(BaseModel):
    # Strict: "1" is not accepted for 1, and 1 not for true.
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class InputParameters(_Message):
    """How a tensor's values were sent."""

    binary_data_size: Size | None = Field(
        default=None, description="Bytes of it after the JSON, in place of `data`."
    )
    content_type: Literal["base64"] | None = Field(
        default=None, description="What strings in `data` are: pictures are always base64."
    )


class Input(_Message):
    """One tensor in."""

    name: str = Field(description="`faces` or `image`.")
    shape: list[Size] = Field(max_length=8)
    datatype: str = Field(description="UINT8 for `faces`, BYTES for `image`.")
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = Field(default=None, description="Nested or flat, in row-major order.")


class OutputParameters(_Message):
    """How a tensor is wanted."""

    binary_data: bool | None = Field(default=None, description="After the JSON, not in it.")
    classification: Size = Field(
        default=0, description='Of `probabilities`: so many of the best as "0.981894:3:happiness".'
    )
    shared_memory_region: str | None = Field(default=None, description="Not supported.")


class Output(_Message):
    """One tensor that is wanted."""

    name: str
    parameters: OutputParameters = OutputParameters()


class RequestParameters(_Message):
    """What holds for all tensors, and how faces are looked for in `image`."""

    binary_data_output: bool = Field(default=False, description="For outputs that do not say.")
    detect: Detect = Field(default=FaceSearch.detect, description="As in /predict.")
    max_faces: int = Field(
        default=FaceSearch.max_faces, ge=1, le=MAX_FACES, description="Of each picture."
    )
    min_face: float | None = Field(default=None, ge=MIN_FACE, le=1, description="As in /predict.")
    prior: str | None = Field(default=None, description="As in /predict.")


class InferenceRequest(_Message):
    """The JSON of a request; the values of binary tensors follow it."""

    id: str = ""
    # Every list is bounded here: a million invalid items would give a million errors.
    inputs: list[Input] = Field(max_length=8, description="Exactly one, `faces` or `image`.")
    outputs: list[Output] = Field(default=[], max_length=8)
    parameters: RequestParameters = RequestParameters()


class OutputTensor(_Message):
    """One tensor out, with `data`, or `binary_data_size` among its parameters."""

    name: str
    shape: list[Size]
    datatype: str
    parameters: dict[str, Scalar] = {}
    data: list[Scalar] | None = None


class InferenceAnswer(_Message):
    """The JSON of an answer; the values of binary tensors follow it."""

    model_name: str
    model_version: str
    id: str = ""
    parameters: dict[str, Scalar] = {}
    outputs: list[OutputTensor]


class TensorMetadata(_Message):
    """A tensor's name, type and shape; -1 is any number."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(_Message):
    """The model's inputs and outputs."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, Scalar]


class ServerMetadata(_Message):
    """What the server is, and which extensions of the protocol it has."""

    name: str
    version: str
    extensions: list[str]


class Live(_Message):
    """The process answers."""

    live: bool


class Ready(_Message):
    """The service accepts requests."""

    ready: bool


class ModelReady(Ready):
    """The model accepts requests."""

    name: str


class InferenceProblem(Problem):
    """A problem with the one member that the protocol's clients read."""

    error: str = Field(description="The same as `detail`.")
