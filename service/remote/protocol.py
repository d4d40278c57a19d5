"""What HTTP workers and an engine in a process of its own say to each other: frames of bytes.

    worker ─▶ FACES, CANCEL ─▶ engine        engine ─▶ HELLO, ANSWERS, FAILURE ─▶ worker

A frame is its payload's length, its kind, the number of the submission that it is about, and the
payload; native byte order, since both are on one host. Nothing is pickled: arrays travel as their
bytes, an error as its code and words, a manifest as JSON. Times are of the monotonic clock, which
all processes of a host share. Not its duty: sockets (`service.remote.client`,
`service.remote.host`).
"""

import asyncio
import json
import math
import struct
from dataclasses import asdict
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.engine.contract import EngineInfo, Faces
from service.engine.explanation import Explanation
from service.errors import InternalError, ServiceError
from service.queue.ticket import Inference
from training.model.manifest import InputSpec, Manifest, NetworkConfig

MAX_PAYLOAD_BYTES = 256 << 20
"""A frame that claims more is refused: nobody here sends it."""
MAX_FACES_BYTES = MAX_PAYLOAD_BYTES // 16
"""Most pixels of one submission. Its answer is larger where it is explained, up to nine times."""

_HEAD = struct.Struct("=IBQ")
_FACES = struct.Struct("=d?IHH")  # deadline, explained, n, h, w
_ANSWERS = struct.Struct("=IH?")  # n, classes, explained
_TIMES = struct.Struct("=dd")  # in the queue, in the engine
_FAILURE = struct.Struct("=dB")  # retry after, length of the code
_DTYPES: dict[int, np.dtype[Any]] = {0: np.dtype(np.uint8), 1: np.dtype(np.float32)}
_NO_ARRAY = 255


class WireError(Exception):
    """The other side sent what it never should: another version of this code, or a defect."""


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    FACES = 2
    CANCEL = 3
    ANSWERS = 4
    FAILURE = 5


_KINDS = {int(kind): kind for kind in Kind}


class Frame(NamedTuple):
    """One frame, taken apart."""

    kind: Kind
    number: int
    payload: bytes


class Submission(NamedTuple):
    """Faces, uint8[n, h, w], and what is wanted of them by when."""

    faces: Faces
    deadline: float
    explained: bool


class TurnWriter:
    """Gathers writes; on the event loop alone."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Write to `transport`, which stays the caller's."""
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Write at the end of this turn; nothing once the transport is closing."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)

    def flush(self) -> None:
        """Write now what was gathered."""
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))


class FrameReader:
    """Makes frames of bytes as they arrive."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._held = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes.

        Returns:
            The frames that they complete.

        Raises:
            WireError: A frame is too long or of no known kind; nothing can be read after it.
        """
        self._held += data
        frames: list[Frame] = []
        start, held = 0, len(self._held)
        while held - start >= _HEAD.size:
            size, kind, number = _HEAD.unpack_from(self._held, start)
            if size > MAX_PAYLOAD_BYTES or kind not in _KINDS:
                raise WireError(f"a frame of {size} bytes of kind {kind}")
            body, start_of_next = start + _HEAD.size, start + _HEAD.size + size
            if held < start_of_next:
                break
            frames.append(Frame(_KINDS[kind], number, bytes(self._held[body:start_of_next])))
            start = start_of_next
        del self._held[:start]
        return frames


def write_hello(hello: EngineInfo) -> bytes:
    """Return the frame with which an engine begins."""
    return _frame(Kind.HELLO, 0, json.dumps(asdict(hello)).encode())


def read_hello(payload: bytes) -> EngineInfo:
    """Read what `write_hello` wrote.

    Raises:
        WireError: It is not that.
    """
    try:
        fields = json.loads(payload)
        manifest = fields["manifest"]
        manifest["network"] = NetworkConfig(**_tuples(manifest["network"]))
        manifest["input_spec"] = InputSpec(**manifest["input_spec"])
        return EngineInfo(Manifest(**_tuples(manifest)), fields["device"], fields["gpu"])
    except (ValueError, TypeError, KeyError) as error:
        raise WireError(f"not an engine's hello: {error}") from error


def write_faces(number: int, submission: Submission) -> bytes:
    """Return the frame that submits faces, which are C-contiguous."""
    faces = submission.faces
    head = _FACES.pack(submission.deadline, submission.explained, *faces.shape)
    return _frame(Kind.FACES, number, head, faces.data)


def read_faces(payload: bytes) -> Submission:
    """Read what `write_faces` wrote.

    Raises:
        WireError: It is not that.
    """
    try:
        deadline, explained, *shape = _FACES.unpack_from(payload)
        faces = np.frombuffer(payload, np.uint8, offset=_FACES.size).reshape(shape)
    except (struct.error, ValueError) as error:
        raise WireError(f"not faces: {error}") from error
    return Submission(faces, deadline, explained)


def write_cancel(number: int) -> bytes:
    """Return the frame that takes a submission back."""
    return _frame(Kind.CANCEL, number)


def write_answers(number: int, inferences: list[Inference]) -> bytes:
    """Return the frame that answers a submission of one face or more."""
    # Piece by piece: arrays of arrays would take five times as long for the one face of most.
    reasons = [one.explanation for one in inferences if one.explanation is not None]
    head = _ANSWERS.pack(len(inferences), len(inferences[0].probabilities), bool(reasons))
    times = [_TIMES.pack(one.queue_s, one.inference_s) for one in inferences]
    rows = [one.probabilities.tobytes() for one in inferences]
    parts = [part for reason in reasons for part in _write_explanation(reason)]
    return _frame(Kind.ANSWERS, number, head, *times, *rows, *parts)


def read_answers(payload: bytes) -> list[Inference]:
    """Read what `write_answers` wrote.

    Raises:
        WireError: It is not that.
    """
    try:
        count, classes, explained = _ANSWERS.unpack_from(payload)
        times = np.frombuffer(payload, np.float64, 2 * count, _ANSWERS.size)
        place = _ANSWERS.size + times.nbytes
        rows = np.frombuffer(payload, np.float32, count * classes, place).reshape(count, classes)
        reader = _ArrayReader(payload, place + rows.nbytes)
        reasons = [_read_explanation(reader) if explained else None for _ in range(count)]
    except (struct.error, ValueError) as error:
        raise WireError(f"not answers: {error}") from error
    spans = times.reshape(count, 2).tolist()
    return [
        Inference(row, queue_s, inference_s, reason)
        for row, (queue_s, inference_s), reason in zip(rows, spans, reasons, strict=True)
    ]


def write_failure(number: int, error: ServiceError) -> bytes:
    """Return the frame that says why there is no answer."""
    retry_after_s = math.nan if error.retry_after_s is None else error.retry_after_s
    code = error.code.encode()
    head = _FAILURE.pack(retry_after_s, len(code))
    return _frame(Kind.FAILURE, number, head, code, error.detail.encode())


def read_failure(payload: bytes) -> ServiceError:
    """Read what `write_failure` wrote; a code that is not known is an `InternalError`.

    Raises:
        WireError: It is not that.
    """
    try:
        retry_after_s, length = _FAILURE.unpack_from(payload)
        code, detail = (
            text.decode()
            for text in (payload[_FAILURE.size :][:length], payload[_FAILURE.size + length :])
        )
    except (struct.error, UnicodeDecodeError) as error:
        raise WireError(f"not a failure: {error}") from error
    kinds = {kind.code: kind for kind in ServiceError.__subclasses__()}
    kind = kinds.get(code, InternalError)
    return kind(detail, None if math.isnan(retry_after_s) else retry_after_s)


def _frame(kind: Kind, number: int, *parts: bytes | memoryview) -> bytes:
    payload = b"".join(parts)
    return _HEAD.pack(len(payload), kind, number) + payload


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Give back what JSON made lists of."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}


def _write_explanation(reason: Explanation) -> list[bytes]:
    arrays = (reason.theta, reason.straightened, reason.attention, reason.evidence)
    return [part for array in arrays for part in _write_array(array)]


def _read_explanation(reader: "_ArrayReader") -> Explanation:
    theta, straightened, attention, evidence = (reader.next() for _ in range(4))
    if theta is None or straightened is None or evidence is None:
        raise ValueError("an explanation lacks a map")
    return Explanation(theta, straightened, attention, evidence)


def _write_array(array: NDArray[Any] | None) -> tuple[bytes, ...]:
    """Return dtype and shape, then the bytes, of an array of two dimensions or of none."""
    if array is None:
        return (struct.pack("=BHH", _NO_ARRAY, 0, 0),)
    code = next(code for code, dtype in _DTYPES.items() if dtype == array.dtype)
    return struct.pack("=BHH", code, *array.shape), array.tobytes()


class _ArrayReader:
    """Reads one array after the other."""

    def __init__(self, payload: bytes, place: int) -> None:
        self._payload, self._place = payload, place

    def next(self) -> NDArray[Any] | None:
        code: int
        code, height, width = struct.unpack_from("=BHH", self._payload, self._place)
        self._place += struct.calcsize("=BHH")
        if code == _NO_ARRAY:
            return None
        if code not in _DTYPES:
            raise ValueError(f"an array of type {code}")
        flat: NDArray[Any]
        flat = np.frombuffer(self._payload, _DTYPES[code], height * width, self._place)
        self._place += flat.nbytes
        return flat.reshape(height, width)
