"""Tests of `service.telemetry.metrics`: what a scrape sees."""

import re
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from service import errors
from service.telemetry.gpu import GpuUsage
from service.telemetry.metrics import PREDICTION, STAGES, Metrics
from training.model.labels import FER2013_EMOTIONS

OURS = {
    "fer_requests": ("counter", {"route", "kind", "method", "status"}),
    "fer_request_seconds": ("histogram", {"route", "kind"}),
    "fer_stage_seconds": ("histogram", {"stage"}),
    "fer_queue_faces": ("gauge", set()),
    "fer_queue_limit_faces": ("gauge", set()),
    "fer_batch_limit_faces": ("gauge", set()),
    "fer_batch_faces": ("histogram", set()),
    "fer_engine_busy_seconds": ("counter", set()),
    "fer_engine_failures": ("counter", set()),
    "fer_engines": ("gauge", set()),
    "fer_faces": ("counter", {"emotion"}),
    "fer_confidence": ("histogram", {"emotion"}),
    "fer_rejections": ("counter", {"reason"}),
    "fer_image_pixels": ("histogram", set()),
    "fer_faceless_images": ("counter", set()),
    "fer_truncated_images": ("counter", set()),
    "fer_abandoned_faces": ("counter", set()),
    "fer_model_info": ("gauge", {"name", "version", "device", "prior"}),
    "fer_ready": ("gauge", set()),
    "fer_connections": ("gauge", set()),
    "fer_connections_dropped": ("counter", {"reason"}),
    "fer_workers": ("gauge", set()),
    "fer_workers_ready": ("gauge", set()),
    "fer_gpu_memory_used_bytes": ("gauge", {"device"}),
    "fer_gpu_memory_total_bytes": ("gauge", {"device"}),
    "fer_gpu_utilization_ratio": ("gauge", {"device"}),
}


def sample(metrics: Metrics, metric: str, /, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(metric, labels)


def test_every_metric_of_the_contract_is_exposed(metrics: Metrics) -> None:
    metrics.requests.labels("/predict", PREDICTION, "POST", "200").inc()
    metrics.request_seconds.labels("/predict", PREDICTION).observe(0.01)
    metrics.gpu.show("cuda:0", GpuUsage(1, 2, 0.5))
    body, _ = metrics.render("application/openmetrics-text")
    families = {f.name: f for f in parse_openmetrics(body.decode()) if f.name.startswith("fer_")}
    assert families.keys() == OURS.keys()
    for name, (kind, labels) in OURS.items():
        assert families[name].type == kind, name
        seen = {key for s in families[name].samples for key in s.labels} - {"le"}
        assert seen == labels, name


def test_known_labels_start_at_zero(metrics: Metrics) -> None:
    for emotion in FER2013_EMOTIONS:
        assert sample(metrics, "fer_faces_total", emotion=emotion) == 0
        assert sample(metrics, "fer_confidence_count", emotion=emotion) == 0
    for stage in STAGES:
        assert sample(metrics, "fer_stage_seconds_count", stage=stage) == 0
    for code in ("queue_full", "overloaded", "deadline_exceeded", "bad_image", "shutting_down"):
        assert sample(metrics, "fer_rejections_total", reason=code) == 0


def subclasses(kind: type[errors.ServiceError]) -> Iterator[type[errors.ServiceError]]:
    for below in kind.__subclasses__():
        yield below
        yield from subclasses(below)


def test_every_kind_of_error_is_a_reason(metrics: Metrics) -> None:
    codes = {kind.code for kind in subclasses(errors.ServiceError)}
    assert len(codes) >= 15
    assert all(sample(metrics, "fer_rejections_total", reason=code) == 0 for code in codes)


def test_the_model_is_described(metrics: Metrics) -> None:
    labels = {"name": "attention-fer-test", "version": "0", "device": "cpu", "prior": "training"}
    assert sample(metrics, "fer_model_info", **labels) == 1


def test_batches_are_counted_by_powers_of_two(metrics: Metrics) -> None:
    metrics.batch_faces.observe(5)
    assert sample(metrics, "fer_batch_faces_bucket", le="4.0") == 0
    assert sample(metrics, "fer_batch_faces_bucket", le="8.0") == 1
    assert sample(metrics, "fer_batch_faces_bucket", le="128.0") == 1


@pytest.mark.parametrize("accept", [None, "", "*/*", "text/plain;version=0.0.4", "image/png, ;;=,"])
def test_text_is_the_default(metrics: Metrics, accept: str | None) -> None:
    body, content_type = metrics.render(accept)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert any(f.name == "fer_ready" for f in parse_text(body.decode()))


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text",
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
        "Application/OpenMetrics-Text; version=not-a-number",
        "application/openmetrics-text;version=999999999999999999999",
    ],
)
def test_openmetrics_by_negotiation(metrics: Metrics, accept: str) -> None:
    body, content_type = metrics.render(accept)
    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert body.endswith(b"# EOF\n")


def test_the_rules_of_promtool_lint_hold(metrics: Metrics) -> None:
    # What `promtool check metrics` complains about, for hosts without promtool.
    metrics.requests.labels("/predict", PREDICTION, "POST", "200").inc()
    families = list(parse_text(metrics.render(None)[0].decode()))
    assert len({f.name for f in families}) == len(families)
    for family in families:
        names = [family.name, *(key for s in family.samples for key in s.labels if key != "le")]
        assert all(re.fullmatch(r"[a-z_][a-z0-9_]*", name) for name in names), names
        assert family.documentation, family.name
        assert not re.search(r"_(milliseconds|ms|percent|kb|mb|minutes|hours)(_|$)", family.name)
        assert not re.search(r"_(counter|gauge|histogram)(_|$)", family.name)
        if family.type == "counter":
            assert all(s.name.endswith(("_total", "_created")) for s in family.samples)
        else:
            assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))


def test_the_process_is_watched_too(metrics: Metrics) -> None:
    names = {f.name for f in parse_text(metrics.render(None)[0].decode())}
    assert {"process_resident_memory_bytes", "process_open_fds", "python_info"} <= names
    assert "python_gc_collections" in names


def test_registries_do_not_share(metrics: Metrics) -> None:
    other = Metrics(CollectorRegistry())
    metrics.engine_failures.inc()
    assert sample(other, "fer_engine_failures_total") == 0
