"""The Kubernetes manifests: whole, valid for three versions, and in step with service and rules."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.config import Settings, key_of
from service.server.topology import fit_to_host
from tests.docker.project import (
    PROMETHEUS,
    ROOT,
    adapter_rules,
    dashboard,
    read_yaml,
    scaling_queries,
)
from tests.docker.test_prometheus import promtool

KUBERNETES = ROOT / "docker/kubernetes"
COMPONENTS = ("monitoring", "checkpoints", "keys", "hpa")
OVERLAYS = ("cpu", "gpu", "keda")
VERSIONS = ("1.35", "1.36", "1.37")
# Of operators; Kubernetes has no schema of these.
FOREIGN = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
NAME = {"app.kubernetes.io/name": "attention-fer"}
KUSTOMIZATIONS = sorted((ROOT / "docker").rglob("kustomization.yaml"))

Resource = dict[str, Any]


def by_kind(text: str) -> dict[str, Resource]:
    """Return the resources by kind; a ConfigMap by its name."""
    found = {}
    for resource in yaml.safe_load_all(text):
        kind = resource["kind"]
        found[resource["metadata"]["name"] if kind == "ConfigMap" else kind] = resource
    return found


def kustomize(folder: Path) -> dict[str, Resource]:
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not installed: https://kubernetes.io/docs/tasks/tools")
    done = subprocess.run(
        [program, "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return by_kind(done.stdout)


@pytest.fixture(params=[*OVERLAYS, "all"], scope="module")
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Resource]:
    """The resources of an overlay, or of one that a user makes of all components but KEDA's."""
    if request.param != "all":
        return kustomize(KUBERNETES / "overlays" / request.param)
    folder = tmp_path_factory.mktemp("own")
    here = os.path.relpath(KUBERNETES, folder)
    own = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "faces",
        "resources": [f"{here}/overlays/cpu"],
        "components": [f"{here}/components/{name}" for name in COMPONENTS],
        "images": [{"name": "attention-fer", "newName": "registry.example.org/fer"}],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(own))
    return kustomize(folder)


def read(path: str) -> Resource:
    resource: Resource = read_yaml(KUBERNETES / path)
    return resource


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = read("base/deployment.yaml")["spec"]["template"]["spec"]
    return spec


def container(path: str = "base/deployment.yaml") -> dict[str, Any]:
    (found,) = read(path)["spec"]["template"]["spec"]["containers"]
    assert found["name"] == "service"
    return dict(found)


def named(kustomization: Path) -> Iterator[Path]:
    """Yield the files and folders that a kustomization names."""
    about = read_yaml(kustomization)
    names = [*about.get("resources", ()), *about.get("components", ())]
    names += [patch["path"] for patch in about.get("patches", ()) if "path" in patch]
    names += [name for one in about.get("configMapGenerator", ()) for name in one["files"]]
    for name in names:
        yield (kustomization.parent / name).resolve()


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_what_a_kustomization_names_is_there(path: Path) -> None:
    found = list(named(path))
    assert found
    for file in found:
        assert file.is_file() or (file / "kustomization.yaml").is_file(), file


def test_every_manifest_is_part_of_one() -> None:
    parts = {file for path in KUSTOMIZATIONS for file in named(path)} | set(KUSTOMIZATIONS)
    left = {file for file in KUBERNETES.rglob("*.yaml") if file.resolve() not in parts}
    assert left == {KUBERNETES / "components/hpa/adapter-rules.yaml"}  # of another program


def test_these_are_the_newest_versions_with_a_schema() -> None:
    assert kubernetes_validate.latest_version().startswith(f"{VERSIONS[-1]}.")


@pytest.mark.parametrize("version", VERSIONS)
def test_resources_are_valid(built: dict[str, Resource], version: str) -> None:
    core = [resource for resource in built.values() if resource["kind"] not in FOREIGN]
    assert {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} <= set(built)
    for resource in core:
        kubernetes_validate.validate(resource, version, strict=True)


def test_a_misspelt_field_is_found() -> None:
    wrong = read("base/service.yaml")
    wrong["spec"]["prots"] = wrong["spec"].pop("ports")
    with pytest.raises(kubernetes_validate.ValidationError, match="prots"):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_an_overlay_has_what_its_name_says(built: dict[str, Resource]) -> None:
    deployment = built["Deployment"]["spec"]
    (service,) = deployment["template"]["spec"]["containers"]
    device = next(one["value"] for one in service["env"] if one["name"] == "FER_DEVICE")
    assert service["image"].endswith(":cuda" if device == "cuda" else ":cpu")
    assert ("nvidia.com/gpu" in service["resources"]["limits"]) is (device == "cuda")
    scaled = bool({"ScaledObject", "HorizontalPodAutoscaler"} & set(built))
    assert ("replicas" in deployment) is not scaled


def test_what_is_mounted_is_a_volume(built: dict[str, Resource]) -> None:
    spec = built["Deployment"]["spec"]["template"]["spec"]
    mounted = {mount["name"] for mount in spec["containers"][0]["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_the_pod_has_no_rights_that_it_does_not_need() -> None:
    spec = pod()
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "docker/Dockerfile").read_text(), re.M)
    assert user is not None
    security = spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert (security["runAsUser"], security["runAsGroup"]) == (int(user[1]), int(user[2]))
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    policy = read("base/network.yaml")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["egress"] == []
    assert policy["ingress"] == [{"ports": [{"port": "http"}]}]


def test_settings_are_the_services() -> None:
    files = ["base/deployment.yaml", *_patches()]
    environment = {
        one["name"]: one.get("value", "some-key-0123456789")
        for file in files
        for one in container(file).get("env", ())
    }
    settings = Settings.from_environ(environment)
    assert {key_of(name) for name in vars(settings)} >= set(environment)
    assert settings.drain_s == Settings().drain_s


def _patches() -> list[str]:
    return [
        str(path.relative_to(KUBERNETES))
        for path in sorted(KUBERNETES.rglob("deployment.yaml"))
        if path.parent.name != "base"
    ]


def test_a_drain_ends_before_the_pod_is_killed() -> None:
    drain_s = {one["name"]: one["value"] for one in container()["env"]}["FER_DRAIN_S"]
    before_s = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod()["terminationGracePeriodSeconds"] >= before_s + float(drain_s) + 5
    # By then a proxy that asks for readiness, and every kube-proxy, has left it out.
    assert before_s >= 5


def test_probes_ask_for_what_the_service_answers() -> None:
    paths = {
        name: container()[f"{name}Probe"]["httpGet"]
        for name in ("startup", "readiness", "liveness")
    }
    assert {name: asked["path"] for name, asked in paths.items()} == {
        "startup": "/health/ready",
        "readiness": "/health/ready",
        "liveness": "/health/live",
    }
    assert {asked["path"] for asked in paths.values()} <= set(Settings().open_paths)
    assert {asked["port"] for asked in paths.values()} == {"http"}
    assert container()["ports"] == [{"name": "http", "containerPort": Settings().port}]
    liveness = container()["livenessProbe"]
    # A worker that hangs is replaced after a minute; the pod is not restarted before.
    assert liveness["periodSeconds"] * liveness["failureThreshold"] > 60


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_limits_leave_room_for_a_worker_a_core(device: str) -> None:
    overlay = "gpu" if device == "cuda" else device
    resources = container(f"overlays/{overlay}/deployment.yaml")["resources"]
    limits = resources["limits"]
    cores, memory = int(limits["cpu"]), int(limits["memory"].removesuffix("Gi")) << 30
    assert resources["requests"] == {name: limits[name] for name in ("cpu", "memory")}
    settings = Settings.from_environ({"FER_DEVICE": device})
    volume = pod()["volumes"][0]["emptyDir"]
    assert volume == {"medium": "Memory", "sizeLimit": "64Mi"}
    assert fit_to_host(settings, cores, memory - (64 << 20)).workers == cores


def test_selectors_find_the_pods_and_their_port() -> None:
    labels = read("base/deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    service = read("base/service.yaml")
    monitor = read("components/monitoring/servicemonitor.yaml")["spec"]
    selectors = [
        service["spec"]["selector"],
        read("base/deployment.yaml")["spec"]["selector"]["matchLabels"],
        read("base/disruption.yaml")["spec"]["selector"]["matchLabels"],
        read("base/network.yaml")["spec"]["podSelector"]["matchLabels"],
        *(one["labelSelector"]["matchLabels"] for one in pod()["topologySpreadConstraints"]),
    ]
    assert all(selector == labels == NAME for selector in selectors)
    # Prometheus finds the Service, and names the job by its label.
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "attention-fer"
    (port,) = service["spec"]["ports"]
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] == port["name"] == port["targetPort"] == "http"
    # $__rate_interval and the rules are made for this interval.
    scraped = read_yaml(PROMETHEUS / "prometheus.yml")["global"]
    assert endpoint["interval"] == scraped["scrape_interval"]
    assert endpoint["scrapeTimeout"] == scraped["scrape_timeout"]


def test_rules_are_those_of_compose(tmp_path: Path) -> None:
    groups = read("components/monitoring/rules.yaml")["spec"]["groups"]
    files = [read_yaml(PROMETHEUS / name) for name in ("recording.yml", "alerts.yml")]
    assert groups == [group for file in files for group in file["groups"]]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": groups}))
    assert "SUCCESS" in promtool("check", "rules", path)


def test_dashboard_and_runbook_are_those_of_compose() -> None:
    built = kustomize(KUBERNETES / "overlays/keda")
    shown = built["attention-fer-dashboard"]
    assert yaml.safe_load(shown["data"]["attention-fer.json"]) == dashboard()
    assert shown["metadata"]["labels"]["grafana_dashboard"] == "1"
    page = (PROMETHEUS / "consoles/alerts.html").read_text()
    assert built["attention-fer-runbook"]["data"] == {"alerts.html": page}


def test_the_document_names_every_part() -> None:
    text = (ROOT / "docs/kubernetes.md").read_text()
    parts = {path.parent.name for path in KUBERNETES.glob("*/*/kustomization.yaml")}
    assert parts == {*OVERLAYS, *COMPONENTS, "keda"}
    assert {part for part in parts if f"| `{part}` |" not in text} == set()
    example = re.search(r"```yaml\n(.*?)```", text, re.S)
    assert example is not None
    about = yaml.safe_load(example[1])
    for name in (*about["resources"], *about["components"]):
        assert (ROOT / name.removeprefix("attention-fer/")).is_dir(), name


def test_both_autoscalers_ask_for_the_same() -> None:
    keda = read("components/keda/scaledobject.yaml")["spec"]
    hpa = read("components/hpa/autoscaler.yaml")["spec"]
    assert keda["scaleTargetRef"]["name"] == hpa["scaleTargetRef"]["name"] == "attention-fer"
    assert (keda["minReplicaCount"], keda["maxReplicaCount"]) == (
        hpa["minReplicas"],
        hpa["maxReplicas"],
    )
    assert keda["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == hpa["behavior"]
    triggers = {one["name"]: one for one in keda["triggers"]}
    busy, cores, wait = hpa["metrics"]
    assert busy["pods"]["target"]["averageValue"] == "700m"
    assert triggers["engines"]["metadata"]["threshold"] == "0.7"
    assert wait["external"]["target"]["value"] == "500m"
    assert triggers["wait"]["metadata"]["threshold"] == "0.5"
    average = cores["resource"]["target"]["averageUtilization"]
    assert triggers["cores"]["metadata"]["value"] == str(average)
    names = {rule["name"]["as"] for rules in adapter_rules().values() for rule in rules}
    assert names == {busy["pods"]["metric"]["name"], wait["external"]["metric"]["name"]}
    # A replica that ends drains before the next one is chosen.
    assert hpa["behavior"]["scaleDown"]["policies"] == [
        {"type": "Pods", "value": 1, "periodSeconds": 60}
    ]
    assert pod()["terminationGracePeriodSeconds"] < 60


def assert_value(expected: float, query: str, series: dict[str, str], folder: Path) -> None:
    """Check by promtool what a query gives after five minutes."""
    sample = {"labels": "{}", "value": expected}
    case = {
        "interval": "1s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": f"sum({query})", "eval_time": "5m", "exp_samples": [sample]}],
    }
    path = folder / "demand.test.yml"
    path.write_text(yaml.safe_dump({"evaluation_interval": "1s", "tests": [case]}))
    assert "SUCCESS" in promtool("test", "rules", path)


every_wait = pytest.mark.parametrize(
    "query", [expression for title, expression in scaling_queries() if title == "wait"]
)


@every_wait
def test_demand_is_the_wait_of_those_who_are_served(query: str, tmp_path: Path) -> None:
    """Of 10 requests a second, 8 are refused; 2 take 1.5 s, of which 0.5 s are their upload."""
    labels = 'job="attention-fer", namespace="faces"'
    series = {
        f'fer_request_seconds_sum{{{labels}, kind="prediction"}}': "0+3x300",
        f'fer_request_seconds_sum{{{labels}, kind="other"}}': "0+50x300",
        f'fer_stage_seconds_sum{{{labels}, stage="receive"}}': "0+1x300",
        f'fer_requests_total{{{labels}, kind="prediction", status="200"}}': "0+2x300",
        f'fer_requests_total{{{labels}, kind="prediction", status="503"}}': "0+8x300",
        f'fer_requests_total{{{labels}, kind="other", status="200"}}': "0+9x300",
        f"up{{{labels}}}": "1x300",
    }
    assert_value(1, query, series, tmp_path)


@every_wait
def test_without_traffic_there_is_no_demand(query: str, tmp_path: Path) -> None:
    labels = 'job="attention-fer", namespace="faces"'
    assert_value(0, query, {f"up{{{labels}}}": "1x300"}, tmp_path)
