"""Tests of `service.http.request_metrics`: what each request counts as."""

import pytest
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry

from service.http.request_metrics import RequestMetrics
from service.http.v2.messages import MODEL, VERSION
from service.telemetry.metrics import KINDS, Metrics
from tests.service.serving import serving

WORK = ("/predict", "/v2/infer")
PATHS = (*WORK, "/health/live")


def count(path: str, method: str, status: int = 200) -> dict[tuple[str, str], float]:
    """Return the requests by route and kind, after one request."""
    metrics = Metrics(CollectorRegistry())
    RequestMetrics(metrics, PATHS, WORK).record(path, method, status, 0.5)
    (family,) = metrics.requests.collect()
    (timed,) = metrics.request_seconds.collect()
    counted = {
        (s.labels["route"], s.labels["kind"]): s.value
        for s in family.samples
        if s.name == "fer_requests_total"
    }
    seconds = {
        (s.labels["route"], s.labels["kind"]): s.value
        for s in timed.samples
        if s.name == "fer_request_seconds_sum"
    }
    assert seconds == dict.fromkeys(counted, 0.5)
    return counted


@pytest.mark.parametrize("path", WORK)
@pytest.mark.parametrize("status", [200, 400, 401, 499, 503])
def test_a_post_to_such_a_path_is_a_prediction_whatever_its_answer(path: str, status: int) -> None:
    assert count(path, "POST", status) == {(path, "prediction"): 1}


@pytest.mark.parametrize(
    ("path", "method", "route"),
    [
        ("/health/live", "GET", "/health/live"),
        ("/health/live", "POST", "/health/live"),
        ("/predict", "GET", "/predict"),
        ("/predict", "HEAD", "/predict"),
        ("/predict", "BREW", "/predict"),
        ("/predict", "OPTIONS", "preflight"),
        ("/predicted", "POST", "unmatched"),
        ("/v2/infer/other", "POST", "unmatched"),
    ],
)
def test_all_else_is_none(path: str, method: str, route: str) -> None:
    assert count(path, method) == {(route, "other"): 1}


@pytest.mark.anyio
async def test_the_api_has_these_predictions_and_no_others() -> None:
    async with serving() as (client, app):
        paths = [route.path for route in app.routes if isinstance(route, APIRoute)]
        for path in paths:
            await client.post(path)
        (family,) = app.state.metrics.requests.collect()
    kinds = {(s.labels["route"], s.labels["kind"]) for s in family.samples}
    assert {kind for _, kind in kinds} == set(KINDS)
    assert {route for route, kind in kinds if kind == "prediction"} == {
        "/predict",
        "/predict/batch",
        "/explain",
        f"/v2/models/{MODEL}/infer",
        f"/v2/models/{MODEL}/versions/{VERSION}/infer",
    }
