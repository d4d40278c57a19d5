"""Prometheus' configuration, rules and alerts, by Prometheus' own tool where it is there."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from service.telemetry.metrics import PREDICTION, Metrics
from tests.docker.project import (
    PROMETHEUS,
    ROOT,
    RULE_TESTS,
    alerts,
    panel_queries,
    read_yaml,
    rules,
    scaling_queries,
)
from tests.waiting import eventually

OPERATIONS = ROOT / "docs/operations.md"


def promtool(*arguments: str | Path, text: str | None = None) -> str:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    done = subprocess.run(
        [program, *arguments], cwd=ROOT, input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_config_and_rules_are_valid() -> None:
    said = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert "2 rule files found" in said
    assert f"{len(alerts())} rules found" in said


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """Start Prometheus with Compose's options, and return where it answers on this host."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = " ".join(read_yaml(ROOT / "docker-compose.yml")["services"]["prometheus"]["command"])
    options = options.replace("=/prometheus", f"={tmp_path}")
    options = options.replace("/etc/prometheus", str(PROMETHEUS))
    url = "${PROMETHEUS_URL:-http://localhost:${PROMETHEUS_PORT:-9090}}"
    assert url in options
    options = options.replace(url, "https://example.org/watch")
    command = [program, *options.split(), f"--web.listen-address={address}"]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, stderr=log) as process,
    ):
        try:
            eventually(lambda: _answers(f"http://{address}/-/ready"), 30)
            yield f"http://{address}"
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_prometheus_serves_the_page_that_alerts_link_to(prometheus: str) -> None:
    page = httpx.get(f"{prometheus}/consoles/alerts.html")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    linked = {alert["annotations"]["runbook_url"].rpartition("#")[2] for alert in alerts().values()}
    assert set(re.findall(r'<h2 id="(\w+)">', page.text)) == linked
    written = (PROMETHEUS / "consoles/alerts.html").read_text()
    assert page.text == re.sub("<!--.*-->", "", written)  # Prometheus drops comments
    # Redirects and links lead to the address that readers use.
    assert httpx.get(prometheus).headers["location"].startswith("/watch/")


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.name)
def test_alerts_fire_when_they_should(path: Path) -> None:
    assert "SUCCESS" in promtool("test", "rules", path)


def test_queries_of_dashboard_and_autoscalers_are_promql(tmp_path: Path) -> None:
    expressions = [expression for _, expression, _ in panel_queries()]
    expressions += [expression for _, expression in scaling_queries()]
    queries = [
        {"record": f"query:{number}", "expr": expression}
        for number, expression in enumerate(expressions)
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": queries}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", path)


def test_the_services_metrics_are_well_formed(metrics: Metrics) -> None:
    metrics.requests.labels("/predict", PREDICTION, "POST", "200").inc()
    assert promtool("check", "metrics", text=metrics.render(None)[0].decode()) == ""


def test_every_alert_is_tested_both_ways() -> None:
    firing: set[str] = set()
    quiet: set[str] = set()
    for path in RULE_TESTS:
        for case in read_yaml(path)["tests"]:
            for check in case.get("alert_rule_test", ()):
                (firing if check["exp_alerts"] else quiet).add(check["alertname"])
    assert firing == quiet == set(alerts())


def test_every_alert_has_its_paragraph() -> None:
    sections = dict(
        re.findall(r"^### (Fer\w+)\n+(.+?)(?=^#|\Z)", OPERATIONS.read_text(), re.M | re.S)
    )
    assert set(sections) == set(alerts())
    for name, alert in alerts().items():
        page = "{{ $externalURL }}/consoles/alerts.html"
        assert alert["annotations"]["runbook_url"] == f"{page}#{name.lower()}"
        assert {"summary", "description"} <= set(alert["annotations"])
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert len(sections[name].split()) > 40, f"the paragraph on {name} says too little"


def test_every_recorded_metric_is_used() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    queries = [rule["expr"] for rule in rules()] + [
        expression for _, expression, _ in panel_queries()
    ]
    assert {name for name in recorded if not any(name in query for query in queries)} == set()


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = ROOT / "docker/grafana/provisioning"
    source = read_yaml(provisioning / "datasources/prometheus.yml")["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    scrape_s = read_yaml(PROMETHEUS / "prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scrape_s == "5s"
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    grafana = read_yaml(ROOT / "docker-compose.yml")["services"]["grafana"]
    mounted = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    folder = read_yaml(provisioning / "dashboards/attention-fer.yml")["providers"][0]["options"][
        "path"
    ]
    assert mounted["./docker/grafana/dashboards"] == folder
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert Path(home).parent == Path(folder)
    assert (ROOT / "docker/grafana/dashboards" / Path(home).name).is_file()
