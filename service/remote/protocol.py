"""The binary protocol between workers and an engine process.

    worker ─▶ FACES, CANCEL ─▶ engine        engine ─▶ HELLO, ANSWERS, FAILURE ─▶ worker

A frame consists of the payload's length, the kind, the number of the submission, and the payload,
in native byte order, since both ends are on one host. Nothing is pickled: arrays are sent as their
bytes, an error as code and detail, a manifest as JSON. Times are of the monotonic clock, which all
processes of a host share.
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
from training.model.prior import Adjustment

MAX_PAYLOAD_BYTES = 256 << 20
"""The largest payload; a longer frame is a protocol error."""
MAX_FACES_BYTES = MAX_PAYLOAD_BYTES // 16
"""Most pixels of one submission. Its answer with explanations is up to nine times as large."""

_HEAD = struct.Struct("=IBQ")
_FACES = struct.Struct("=dHIHH")  # deadline, classes to explain under or 0, n, h, w
_SCALE = struct.Struct("=d")
_ANSWERS = struct.Struct("=IH?")  # n, classes, explained
_TIMES = struct.Struct("=dd")  # in the queue, in the engine
_FAILURE = struct.Struct("=dB")  # retry after, length of the code
_DTYPES: dict[int, np.dtype[Any]] = {0: np.dtype(np.uint8), 1: np.dtype(np.float32)}
_NO_ARRAY = 255


class WireError(Exception):
    """The peer violated the protocol: it runs another version of this code, or has a defect."""


class Kind(IntEnum):
    """The kinds of frames."""

    HELLO = 1
    FACES = 2
    CANCEL = 3
    ANSWERS = 4
    FAILURE = 5


_KINDS = {int(kind): kind for kind in Kind}


class Frame(NamedTuple):
    """One parsed frame."""

    kind: Kind
    number: int
    payload: bytes


class Submission(NamedTuple):
    """Faces, uint8[n, h, w], their deadline, and how they are explained; None: not at all."""

    faces: Faces
    deadline: float
    explain_under: Adjustment | None


class CoalescingWriter:
    """Combines the writes of one event-loop iteration; used on the event loop only."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Write to `transport`, which the caller owns."""
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Write at the end of this iteration; nothing once the transport is closing."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)

    def flush(self) -> None:
        """Write the collected data now."""
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))


class FrameReader:
    """Parses frames incrementally."""

    def __init__(self) -> None:
        """Start with an empty buffer."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Add received bytes.

        Returns:
            The frames that are complete now.

        Raises:
            WireError: A frame is too long or of an unknown kind; nothing can be read after it.
        """
        self._buffer += data
        frames: list[Frame] = []
        start, buffered = 0, len(self._buffer)
        while buffered - start >= _HEAD.size:
            size, kind, number = _HEAD.unpack_from(self._buffer, start)
            if size > MAX_PAYLOAD_BYTES or kind not in _KINDS:
                raise WireError(f"a frame of {size} bytes of kind {kind}")
            body, start_of_next = start + _HEAD.size, start + _HEAD.size + size
            if buffered < start_of_next:
                break
            frames.append(Frame(_KINDS[kind], number, bytes(self._buffer[body:start_of_next])))
            start = start_of_next
        del self._buffer[:start]
        return frames


def write_hello(hello: EngineInfo) -> bytes:
    """Return the first frame of an engine, its description."""
    return _frame(Kind.HELLO, 0, json.dumps(asdict(hello)).encode())


def read_hello(payload: bytes) -> EngineInfo:
    """Read what `write_hello` wrote.

    Raises:
        WireError: The payload is malformed.
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
    faces, how = submission.faces, submission.explain_under
    head = _FACES.pack(submission.deadline, 0 if how is None else len(how.shift), *faces.shape)
    under = () if how is None else (_SCALE.pack(how.scale), how.shift.tobytes())
    return _frame(Kind.FACES, number, head, *under, faces.data)


def read_faces(payload: bytes) -> Submission:
    """Read what `write_faces` wrote.

    Raises:
        WireError: The payload is malformed.
    """
    try:
        deadline, classes, *shape = _FACES.unpack_from(payload)
        how, offset = _read_adjustment(payload, classes) if classes else (None, _FACES.size)
        faces = np.frombuffer(payload, np.uint8, offset=offset).reshape(shape)
    except (struct.error, ValueError) as error:
        raise WireError(f"not faces: {error}") from error
    return Submission(faces, deadline, how)


def _read_adjustment(payload: bytes, classes: int) -> tuple[Adjustment, int]:
    """Return the adjustment of a submission, and the offset of its faces."""
    (scale,) = _SCALE.unpack_from(payload, _FACES.size)
    offset = _FACES.size + _SCALE.size
    shift = np.frombuffer(payload, np.float32, classes, offset)
    return Adjustment(scale, shift), offset + shift.nbytes


def write_cancel(number: int) -> bytes:
    """Return the frame that cancels a submission."""
    return _frame(Kind.CANCEL, number)


def write_answers(number: int, inferences: list[Inference]) -> bytes:
    """Return the frame that answers a submission of one face or more."""
    # Joined piece by piece: for one face, the usual case, numpy would take five times as long.
    explanations = [one.explanation for one in inferences if one.explanation is not None]
    head = _ANSWERS.pack(len(inferences), len(inferences[0].probabilities), bool(explanations))
    times = [_TIMES.pack(one.queue_s, one.inference_s) for one in inferences]
    rows = [one.probabilities.tobytes() for one in inferences]
    parts = [part for explanation in explanations for part in _write_explanation(explanation)]
    return _frame(Kind.ANSWERS, number, head, *times, *rows, *parts)


def read_answers(payload: bytes) -> list[Inference]:
    """Read what `write_answers` wrote.

    Raises:
        WireError: The payload is malformed.
    """
    try:
        count, classes, explained = _ANSWERS.unpack_from(payload)
        times = np.frombuffer(payload, np.float64, 2 * count, _ANSWERS.size)
        offset = _ANSWERS.size + times.nbytes
        rows = np.frombuffer(payload, np.float32, count * classes, offset).reshape(count, classes)
        reader = _ArrayReader(payload, offset + rows.nbytes)
        explanations = [_read_explanation(reader) if explained else None for _ in range(count)]
    except (struct.error, ValueError) as error:
        raise WireError(f"not answers: {error}") from error
    spans = times.reshape(count, 2).tolist()
    return [
        Inference(row, queue_s, inference_s, explanation)
        for row, (queue_s, inference_s), explanation in zip(rows, spans, explanations, strict=True)
    ]


def write_failure(number: int, error: ServiceError) -> bytes:
    """Return the frame that reports an error."""
    retry_after_s = math.nan if error.retry_after_s is None else error.retry_after_s
    code = error.code.encode()
    head = _FAILURE.pack(retry_after_s, len(code))
    return _frame(Kind.FAILURE, number, head, code, error.detail.encode())


def read_failure(payload: bytes) -> ServiceError:
    """Read what `write_failure` wrote; an unknown code becomes an `InternalError`.

    Raises:
        WireError: The payload is malformed.
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
    """Convert the lists of JSON back to tuples."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in fields.items()}


def _write_explanation(one: Explanation) -> list[bytes]:
    arrays = (one.theta, one.straightened, one.attention, one.evidence)
    return [part for array in arrays for part in _write_array(array)]


def _read_explanation(reader: "_ArrayReader") -> Explanation:
    theta, straightened, attention, evidence = (reader.next() for _ in range(4))
    if theta is None or straightened is None or evidence is None:
        raise ValueError("an explanation lacks a map")
    return Explanation(theta, straightened, attention, evidence)


def _write_array(array: NDArray[Any] | None) -> tuple[bytes, ...]:
    """Return dtype and shape, then the bytes, of a two-dimensional array or None."""
    if array is None:
        return (struct.pack("=BHH", _NO_ARRAY, 0, 0),)
    code = next(code for code, dtype in _DTYPES.items() if dtype == array.dtype)
    return struct.pack("=BHH", code, *array.shape), array.tobytes()


class _ArrayReader:
    """Reads consecutive arrays from a payload."""

    def __init__(self, payload: bytes, offset: int) -> None:
        self._payload, self._offset = payload, offset

    def next(self) -> NDArray[Any] | None:
        code: int
        code, height, width = struct.unpack_from("=BHH", self._payload, self._offset)
        self._offset += struct.calcsize("=BHH")
        if code == _NO_ARRAY:
            return None
        if code not in _DTYPES:
            raise ValueError(f"an array of type {code}")
        flat: NDArray[Any]
        flat = np.frombuffer(self._payload, _DTYPES[code], height * width, self._offset)
        self._offset += flat.nbytes
        return flat.reshape(height, width)
