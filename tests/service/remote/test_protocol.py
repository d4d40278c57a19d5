"""Tests of `service.remote.protocol`: what arrives is what was sent, or is refused."""

import json
import struct
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engine.contract import EngineInfo
from service.engine.explanation import Explanation
from service.errors import InternalError, QueueFull, ServiceError
from service.queue.ticket import Inference
from service.remote.protocol import (
    MAX_PAYLOAD_BYTES,
    Frame,
    FrameReader,
    Kind,
    Submission,
    WireError,
    read_answers,
    read_faces,
    read_failure,
    read_hello,
    write_answers,
    write_cancel,
    write_faces,
    write_failure,
    write_hello,
)
from tests.service.serving import MANIFEST
from training.model.prior import Adjustment

UNDER = Adjustment(0.8, np.array([0.5, -1.5, -np.inf], np.float32))
SUBMISSION = Submission(np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4), 123.5, UNDER)
PLAIN = SUBMISSION._replace(explain_under=None)
REASON = Explanation(
    np.eye(2, 3, dtype=np.float32),
    np.full((48, 48), 7, np.uint8),
    np.full((12, 12), 0.5, np.float32),
    np.full((24, 24), 2.5, np.float32),
)


def only(data: bytes) -> Frame:
    (frame,) = FrameReader().feed(data)
    return frame


@given(st.lists(st.integers(1, 60), max_size=20))
def test_frames_arrive_whole_however_the_bytes_are_cut(cuts: list[int]) -> None:
    data = write_faces(7, SUBMISSION) + write_cancel(7) + write_failure(8, QueueFull("full", 1.5))
    reader, frames, start = FrameReader(), [], 0
    for cut in [*cuts, len(data)]:
        frames += reader.feed(data[start : start + cut])
        start += cut
    assert [(f.kind, f.number) for f in frames] == [
        (Kind.FACES, 7),
        (Kind.CANCEL, 7),
        (Kind.FAILURE, 8),
    ]


@pytest.mark.parametrize(("size", "kind"), [(MAX_PAYLOAD_BYTES + 1, 2), (1, 0), (1, 99)])
def test_a_frame_that_nobody_sends_is_refused_by_its_head(size: int, kind: int) -> None:
    with pytest.raises(WireError, match=f"{size} bytes of kind {kind}"):
        FrameReader().feed(struct.pack("=IBQ", size, kind, 1))


def test_faces_arrive_as_they_were() -> None:
    frame = only(write_faces(5, SUBMISSION))
    got = read_faces(frame.payload)
    assert (frame.number, got.deadline) == (5, 123.5)
    assert got.explain_under is not None
    assert got.explain_under.scale == 0.8
    assert got.explain_under.shift.dtype == np.float32
    assert np.array_equal(got.explain_under.shift, UNDER.shift)
    assert np.array_equal(got.faces, SUBMISSION.faces)
    assert got.faces.dtype == np.uint8


def test_faces_without_a_wish_for_explanations_have_none() -> None:
    got = read_faces(only(write_faces(5, PLAIN)).payload)
    assert got.explain_under is None
    assert np.array_equal(got.faces, PLAIN.faces)


@pytest.mark.parametrize("submission", [SUBMISSION, PLAIN])
@pytest.mark.parametrize(
    "change", [lambda p: p[:-1], lambda p: p + b"x", lambda p: p[:5], lambda p: p[:20]]
)
def test_faces_of_another_length_than_they_say_are_refused(
    change: object, submission: Submission
) -> None:
    payload = only(write_faces(5, submission)).payload
    with pytest.raises(WireError, match="not faces"):
        read_faces(change(payload))  # type: ignore[operator]


@pytest.mark.parametrize("attention", [REASON.attention, None], ids=["attention", "none"])
def test_answers_arrive_as_they_were(attention: np.ndarray | None) -> None:
    reason = Explanation(REASON.theta, REASON.straightened, attention, REASON.evidence)
    rows = np.random.default_rng(0).random((3, 7), np.float32)
    sent = [Inference(row, 0.25 * n, 0.5, reason) for n, row in enumerate(rows)]
    got = read_answers(only(write_answers(1, sent)).payload)
    assert [(one.queue_s, one.inference_s) for one in got] == [(0, 0.5), (0.25, 0.5), (0.5, 0.5)]
    assert np.array_equal(np.stack([one.probabilities for one in got]), rows)
    for one in got:
        assert one.explanation is not None
        for name in ("theta", "straightened", "attention", "evidence"):
            array = getattr(one.explanation, name)
            assert np.array_equal(array, getattr(reason, name))
            assert array is None or array.dtype == getattr(reason, name).dtype


def test_answers_without_reasons_have_none() -> None:
    sent = [Inference(np.array([0.25, 0.75], np.float32), 0.0, 0.0)]
    assert read_answers(only(write_answers(1, sent)).payload)[0].explanation is None


def test_a_part_of_answers_is_refused() -> None:
    payload = only(write_answers(1, [Inference(np.ones(7, np.float32), 0, 0, REASON)])).payload
    for length in range(len(payload)):
        with pytest.raises(WireError, match="not answers"):
            read_answers(payload[:length])


@pytest.mark.parametrize("kind", ServiceError.__subclasses__())
@pytest.mark.parametrize("retry_after_s", [None, 2.5])
def test_every_failure_arrives_as_it_was(
    kind: type[ServiceError], retry_after_s: float | None
) -> None:
    sent = kind("What was wrong \u2013 in words.", retry_after_s)
    got = read_failure(only(write_failure(1, sent)).payload)
    assert type(got) is kind
    assert (got.detail, got.retry_after_s) == (sent.detail, retry_after_s)


def test_a_failure_of_unknown_code_is_an_internal_one() -> None:
    payload = struct.pack("=dB", 1.0, 3) + b"newdetail"
    assert type(read_failure(payload)) is InternalError
    with pytest.raises(WireError):
        read_failure(b"short")


def test_a_hello_arrives_as_it_was() -> None:
    hello = EngineInfo(MANIFEST, "cuda:1", "GPU-1")
    assert read_hello(only(write_hello(hello)).payload) == hello


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"device": "cpu"}', b"\xff"])
def test_what_is_no_hello_is_refused(payload: bytes) -> None:
    with pytest.raises(WireError, match="not an engine's hello"):
        read_hello(payload)


def test_a_hello_of_another_version_is_refused() -> None:
    fields = asdict(EngineInfo(MANIFEST, "cpu"))
    fields["manifest"]["novelty"] = 1
    with pytest.raises(WireError, match="novelty"):
        read_hello(json.dumps(fields).encode())
