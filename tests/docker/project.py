"""The operator's files, read."""

import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "docker/prometheus"
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


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if "targets" in panel]


def panel_queries() -> list[tuple[str, str, str]]:
    """Title, expression and legend of everything that the dashboard asks Prometheus."""
    return [
        # What Grafana puts in its place: four scrapes at least.
        (panel["title"], target["expr"].replace("$__rate_interval", "1m"), target["legendFormat"])
        for panel in panels()
        for target in panel["targets"]
    ]
