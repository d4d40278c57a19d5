"""Tests of `service.errors` and `service.http.problems`: what a client sees of each failure."""

import json

import pytest

from service import errors
from service.errors import ServiceError
from service.http.problems import MEDIA_TYPE, problem, problem_response
from service.http.schemas import Problem

KINDS = ServiceError.__subclasses__()

STABLE = {
    "no_image": 400,
    "bad_request": 400,
    "bad_image": 400,
    "unauthorized": 401,
    "not_found": 404,
    "method_not_allowed": 405,
    "upload_timeout": 408,
    "image_too_large": 413,
    "request_too_large": 413,
    "too_many_pixels": 413,
    "too_many_images": 413,
    "unsupported_type": 415,
    "headers_too_large": 431,
    "inference_failed": 500,
    "internal_error": 500,
    "no_detector": 501,
    "unsupported_coding": 501,
    "queue_full": 503,
    "overloaded": 503,
    "out_of_memory": 503,
    "too_many_connections": 503,
    "shutting_down": 503,
    "not_ready": 503,
    "deadline_exceeded": 504,
}


def test_codes_and_statuses_are_stable() -> None:
    assert {kind.code: kind.status for kind in KINDS} == STABLE
    assert len(KINDS) == len(STABLE)
    assert len({kind.title for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_each_kind_becomes_a_problem(kind: type[ServiceError]) -> None:
    response = problem_response(kind("What to do."))
    body = json.loads(bytes(response.body))
    assert Problem.model_validate(body).model_dump() == body == problem(kind("What to do."))
    assert body["type"] == f"urn:attention-fer:problem:{kind.code}"
    assert (body["status"], body["code"], body["detail"]) == (
        kind.status,
        kind.code,
        "What to do.",
    )
    assert response.status_code == kind.status
    assert response.headers["content-type"] == MEDIA_TYPE == "application/problem+json"
    assert ("retry-after" in response.headers) == (kind.status == 503)


@pytest.mark.parametrize(
    ("seconds", "header"), [(None, "1"), (0.0, "1"), (0.2, "1"), (2.0, "2"), (2.1, "3")]
)
def test_retry_after_is_whole_seconds_and_never_zero(seconds: float | None, header: str) -> None:
    response = problem_response(errors.QueueFull("Full.", seconds))
    assert response.headers["retry-after"] == header


def test_further_headers_are_kept() -> None:
    response = problem_response(errors.MethodNotAllowed("No."), {"Allow": "POST"})
    assert response.headers["allow"] == "POST"
