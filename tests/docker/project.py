"""The operator's files, read."""

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "docker/prometheus"
KUBERNETES = ROOT / "docker/kubernetes"
DASHBOARD = ROOT / "docker/grafana/dashboards/attention-fer.json"
RULE_TESTS = sorted((ROOT / "tests/docker").glob("*.test.yml"))


class _Loader(yaml.SafeLoader):
    """Knows the two tags of Compose, by which an override drops what it overrides."""


_Loader.add_constructor("!reset", lambda loader, node: None)
_Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))


def read_yaml(path: Path) -> Any:
    return yaml.load(path.read_text(), _Loader)


def rules() -> list[dict[str, Any]]:
    """Recording rules and alerts, in the order in which Prometheus reads them."""
    files = [read_yaml(PROMETHEUS / name) for name in ("recording.yml", "alerts.yml")]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return read


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if "targets" in panel]


def panel_queries() -> list[tuple[str, str, str]]:
    """Title, expression and legend of everything that the dashboard asks Prometheus."""
    return [
        (panel["title"], _as_grafana_asks(target["expr"]), target["legendFormat"])
        for panel in panels()
        for target in panel["targets"]
    ]


def _as_grafana_asks(expression: str) -> str:
    """Put values for the variables: four scrapes at least, and what is selected at first."""
    values = {"$__rate_interval": "1m", "$job": "attention-fer", "$instance": ".+"}
    for variable, value in values.items():
        expression = expression.replace(variable, value)
    return expression


def adapter_rules() -> dict[str, list[dict[str, Any]]]:
    """Rules of the Prometheus Adapter, by the kind of their metrics."""
    found: dict[str, list[dict[str, Any]]]
    found = read_yaml(KUBERNETES / "components/hpa/adapter-rules.yaml")["rules"]
    return found


def scaling_queries() -> list[tuple[str, str]]:
    """Title and expression of everything that an autoscaler on Kubernetes asks Prometheus."""
    triggers = read_yaml(KUBERNETES / "components/keda/scaledobject.yaml")["spec"]["triggers"]
    asked = [
        (trigger["name"], trigger["metadata"]["query"])
        for trigger in triggers
        if trigger["type"] == "prometheus"
    ]
    titles = {"fer_engine_busy_ratio": "engines", "fer_wait_seconds": "wait"}
    asked += [
        (titles[rule["name"]["as"]], _as_the_adapter_asks(rule))
        for rules in adapter_rules().values()
        for rule in rules
    ]
    return asked


def _as_the_adapter_asks(rule: dict[str, Any]) -> str:
    """Put values for the placeholders; the job in place of the namespace that Kubernetes adds."""
    values = {
        "<<.Series>>": rule["seriesQuery"].partition("{")[0],
        "<<.GroupBy>>": "job",
        "<<.LabelMatchers>>": 'job="attention-fer"',
    }
    query: str = rule["metricsQuery"]
    for placeholder, value in values.items():
        query = query.replace(placeholder, value)
    return query
