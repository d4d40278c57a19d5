"""Every query of the rules and the dashboard reads metrics that the service really exposes."""

import re
from collections import defaultdict

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.gpu import GpuUsage
from tests.docker.project import dashboard, panel_queries, panels, rules, scaling_queries
from tests.docker.promql import Selector, grouped_labels, selectors
from tests.service.made_pictures import flat
from tests.service.serving import BrokenEngine, serving

pytestmark = pytest.mark.anyio

Live = dict[str, list[dict[str, str]]]
"""Labels of every sample, by its name; for a recorded metric the names of its labels alone."""

TARGET = {"job": "attention-fer", "instance": "service:8000"}
# Prometheus' own, about what it scrapes.
PROMETHEUS_METRICS = {"up": [TARGET]}

QUERIES = [(rule.get("record") or rule["alert"], rule["expr"], "") for rule in rules()]
QUERIES += panel_queries()
QUERIES += [(title, expression, "") for title, expression in scaling_queries()]


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
            samples[sample.name].append(sample.labels | TARGET)
    return {**samples, **PROMETHEUS_METRICS, **recorded()}


def recorded() -> Live:
    """The recording rules' metrics: by Prometheus' convention their names begin with the labels."""
    return {rule["record"]: [_level(rule["record"])] for rule in rules() if "record" in rule}


def _level(name: str) -> dict[str, str]:
    labels = {"job", *name.split(":")[0].split("_")}
    return {label: TARGET.get(label, "") for label in labels}


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


def unscoped(expression: str) -> list[str]:
    """Return the metrics that an expression of the dashboard reads of jobs not selected.

    Metrics that are summed over a job have no instance.
    """
    job, instance = ("job", "=~", "$job"), ("instance", "=~", "$instance")
    return [
        selector.metric
        for selector in selectors(expression)
        if job not in selector.matchers
        or (instance not in selector.matchers and not selector.metric.startswith("job:"))
    ]


def test_every_query_of_the_dashboard_is_of_the_selected_source_job_and_instances() -> None:
    targets = [target for panel in panels() for target in panel["targets"]]
    for target in targets:
        assert unscoped(target["expr"]) == []
    (alerts,) = dashboard()["annotations"]["list"]
    # Alerts about a whole job have no instance, and are shown for each.
    assert alerts["expr"].endswith('job=~"$job", instance=~"$instance|"}')
    sources = [asked["datasource"] for asked in (*targets, *panels(), alerts)]
    assert {(source["type"], source["uid"]) for source in sources} == {
        ("prometheus", "${datasource}")
    }


def test_a_query_of_other_jobs_is_found() -> None:
    assert unscoped('fer_ready{job=~"$job"} + sum(job:a:b) + fer_ready') == [
        *("fer_ready", "job:a:b", "fer_ready")
    ]


async def test_the_dashboards_variables_offer_what_there_is(live: Live) -> None:
    variables = {one["name"]: one for one in dashboard()["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]  # each is asked of those before it
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == (
        "datasource",
        "prometheus",
    )
    for name in ("job", "instance"):
        variable = variables[name]
        assert variable["datasource"]["uid"] == "${datasource}"
        assert variable["query"]["query"] == variable["definition"]
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
        assert found is not None
        (selector,) = selectors(found[1])
        assert found[2] == name
        assert name in live[selector.metric][0]
    assert variables["instance"]["includeAll"]
    assert variables["instance"]["allValue"] == ".+"


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
