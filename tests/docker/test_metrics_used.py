"""Every query of the rules and the dashboard reads metrics that the service really exposes."""

import re
from collections import defaultdict

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.gpu import GpuUsage
from tests.docker.project import panel_queries, panels, rules
from tests.docker.promql import Selector, grouped_labels, selectors
from tests.service.made_pictures import flat
from tests.service.serving import BrokenEngine, serving

pytestmark = pytest.mark.anyio

Live = dict[str, list[dict[str, str]]]
"""Labels of every sample, by its name; for a recorded metric the names of its labels alone."""

SCRAPED = {"job", "instance"}
# Prometheus' own, about what it scrapes.
PROMETHEUS_METRICS = {"up": [{"job": "attention-fer", "instance": "service:8000"}]}

QUERIES = [(rule.get("record") or rule["alert"], rule["expr"], "") for rule in rules()]
QUERIES += panel_queries()


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def live(anyio_backend: str) -> Live:
    """What a scrape sees on a GPU after an answer, a failure of the engine and a wrong path."""
    async with serving(BrokenEngine()) as (client, app):
        app.state.metrics.gpu.show("cuda:0", GpuUsage(1, 2, 0.5))
        statuses = [
            (await client.post("/predict", content=flat(level), headers={"content-type": kind}))
            .status_code
            for level, kind in ((130, "image/png"), (0, "image/png"))
        ]  # fmt: skip
        await client.get("/nothing/here")
        text = (await client.get("/metrics")).text
    assert statuses == [200, 500]
    samples: Live = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            target = {"job": "attention-fer", "instance": "service:8000"}
            samples[sample.name].append(sample.labels | target)
    return {**samples, **PROMETHEUS_METRICS, **recorded()}


def recorded() -> Live:
    """The recording rules' metrics: by Prometheus' convention their names begin with the labels."""
    return {
        rule["record"]: [
            dict.fromkeys(_level(rule["record"]), "") | {"job": "attention-fer"}
        ]
        for rule in rules()
        if "record" in rule
    }  # fmt: skip


def _level(name: str) -> set[str]:
    level = set(name.split(":")[0].split("_"))
    return level | SCRAPED if "instance" in level else level


def _complaints(selector: Selector, live: Live) -> list[str]:
    samples = live.get(selector.metric)
    if not samples:
        return [f"{selector.metric} is not exposed"]
    found = []
    for label, operator, value in selector.matchers:
        values = {sample[label] for sample in samples if label in sample}
        if not values:
            found.append(f"{selector.metric} has no label {label}")
        # Each alternative by itself: a misspelt one beside a right one would never be noticed.
        for part in [value] if "(" in value else value.split("|"):
            matches = re.fullmatch if operator.endswith("~") else str.__eq__
            if operator in ("=", "=~") and not any(matches(part, v) for v in values):
                found.append(
                    f'{selector.metric}: {label}{operator}"{part}" matches none of {values}'
                )
    return found


@pytest.mark.parametrize(("title", "expression", "legend"), QUERIES)
async def test_query(title: str, expression: str, legend: str, live: Live) -> None:
    read = selectors(expression)
    assert read
    assert [complaint for s in read for complaint in _complaints(s, live)] == []
    labels = set().union(*(sample.keys() for s in read for sample in live[s.metric]))
    assert grouped_labels(expression) <= labels
    shown = set(re.findall(r"{{\s*(\w+)\s*}}", legend))
    kept = grouped_labels(expression) if re.search(r"\bby\s*\(", expression) else labels
    assert shown <= kept


async def test_the_checks_find_what_is_wrong(live: Live) -> None:
    wrong = (
        Selector("fer_request_total", ()),
        Selector("fer_requests_total", (("path", "=", "/predict"),)),
        Selector("fer_rejections_total", (("reason", "=~", "queue_full|overload"),)),
        Selector("fer_requests_total", (("status", "=", "2.."),)),
    )
    assert [len(_complaints(selector, live)) for selector in wrong] == [1, 2, 1, 1]


def test_every_metric_of_the_service_is_watched() -> None:
    """A metric that no query reads is one that nobody sees."""
    from prometheus_client import CollectorRegistry

    from service.telemetry.metrics import Metrics

    registry = CollectorRegistry()
    Metrics(registry)
    ours = {family.name for family in registry.collect() if family.name.startswith("fer_")}
    read = {s.metric for _, expression, _ in QUERIES for s in selectors(expression)}
    stems = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in read}
    assert ours - stems == set()


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
