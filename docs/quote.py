"""Writes into the documents what code, checkpoints and results say, so that they cannot drift.

usage: python docs/quote.py           write the blocks between `begin` and `end` marks anew, the
                                      release's version where a file has to spell it out, the
                                      page of the alerts that Prometheus shows, and Prometheus'
                                      rules as Kubernetes takes them
       python docs/quote.py --check   exit with 1 if that would change anything
"""

import json
import re
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from prometheus_client import CollectorRegistry  # noqa: E402

from benchmarks.serving import report  # noqa: E402
from docs import runbook  # noqa: E402
from service import __version__  # noqa: E402
from service.config import SHIPPED, describe  # noqa: E402
from service.errors import ServiceError  # noqa: E402
from service.telemetry.metrics import Metrics  # noqa: E402
from training.comparison import WELL_LABELLED  # noqa: E402
from training.model.checkpoint import load_checkpoint  # noqa: E402
from training.significance import summarise, summarise_geometry  # noqa: E402
from training.table import tabulate  # noqa: E402

RESULTS = ROOT / "docs/results"
SERVING = ROOT / "benchmarks/results/serving.json"
PRIORS = ("training", "balanced", "uniform")
SERVING_ON_GPU = ROOT / "benchmarks/results/h200/serving.json"


def figures(name: str) -> str:
    """Return a shipped checkpoint's figures, from its own header."""
    manifest = load_checkpoint(SHIPPED[name]).manifest
    table = tabulate(manifest.metrics, manifest.emotions)
    size = SHIPPED[name].stat().st_size / 1e6
    lines = [f"{manifest.name} {manifest.version}", *table.splitlines(), f"{size:.1f} MB on disk"]
    return "\n".join(f"    {line}".rstrip() for line in lines)


def checkpoints() -> str:
    """Return how well each shipped checkpoint does, a row each."""
    rows = []
    for name in SHIPPED:
        manifest = load_checkpoint(SHIPPED[name]).manifest
        test, flip = manifest.metrics["test"], manifest.metrics["test_flip"]
        majority = manifest.metrics.get("test_majority")
        cells = [str(len(manifest.emotions)), f"{test['faces']:,}", f"{test['accuracy']:.2%}"]
        cells += [f"{flip['accuracy']:.2%}", f"{majority['accuracy']:.2%}" if majority else "-"]
        cells += [f"{test['macro_f1']:.3f}", f"{test['calibration_error']:.4f}"]
        rows.append(_row(f"`{name}`", cells))
    head = ("emotions", "test faces", "accuracy", "with flip", "majority", "macro-F1", "ECE")
    return "\n".join((_row("checkpoint", [*head]), "|---" * 8 + "|", *rows))


def priors() -> str:
    """Return what each prior costs on the test faces and brings on photographs from elsewhere."""
    rows = []
    for name in SHIPPED:
        for prior in PRIORS:
            test, wild = _under(name, prior)
            cells = [f"`{prior}`", f"{test['accuracy']:.2%}", f"{test['mean_recall']:.3f}"]
            cells += [f"{test['calibration_error']:.4f}", f"{wild['accuracy']:.2%}"]
            cells += [f"{wild['five']:.3f}", f"{wild['mean_recall']:.3f}"]
            rows.append(_row(f"`{name}`", cells))
    head = ("prior", "test: accuracy", "mean recall", "ECE")
    head += ("elsewhere: accuracy", "mean recall of five", "of seven")
    return "\n".join((_row("checkpoint", [*head]), "|---" * 8 + "|", *rows))


def prior() -> str:
    """Return in two sentences what the default prior costs and brings."""
    (test, wild), (before, there) = (_under("ferplus", name) for name in ("balanced", "training"))
    five = ", ".join(WELL_LABELLED)
    return (
        f"On FER+'s test faces `ferplus` has {test['accuracy']:.2%} accuracy and a mean recall of "
        f"{test['mean_recall']:.3f} under it, instead of {before['accuracy']:.2%} and "
        f"{before['mean_recall']:.3f} under the training labels' prior.\n"
        f"On photographs from elsewhere it has {wild['accuracy']:.2%} and {wild['five']:.3f} (mean "
        f"of {five}), instead of {there['accuracy']:.2%} and {there['five']:.3f}."
    )


def _under(name: str, prior: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a shipped checkpoint's figures under a prior: on test faces, and from elsewhere."""
    test = load_checkpoint(SHIPPED[name]).manifest.metrics["priors"][prior]["test"]
    rows = json.loads((RESULTS / "comparison/comparison.json").read_text())
    key = f"attention-fer-{name}", prior
    (row,) = (row for row in rows if (row["checkpoint"], row["prior"]) == key)
    return test, row["wild"]


def agreement() -> str:
    """Return how the FER+ checkpoint agrees with the annotators."""
    found = measured("ferplus")["agreement"]
    rows = [
        f"| {one['least']:.0%} | {one['faces']} | {one['accuracy']:.4f} |"
        for one in found["bins"]
        if one["faces"]
    ]
    said = (
        f"Cross-entropy with the votes' distribution: {found['cross_entropy']:.3f} nats, of which "
        f"{found['entropy']:.3f} are the votes' own."
    )
    head = ("| annotators who agree, from | faces | accuracy |", "|---|---|---|")
    return "\n".join((said, "", *head, *rows))


def calibration() -> str:
    """Return the calibration errors before and after scaling."""
    rows = []
    for name in SHIPPED:
        found = measured(name)
        before, after = (found["reliability"][f"{when}_scaling"] for when in ("before", "after"))
        temperature = f"{found['temperature']:.3f}"
        rows.append(f"| `{name}` | {before['error']:.4f} | {after['error']:.4f} | {temperature} |")
    head = ("| test faces, single pass | ECE before | after | temperature |", "|---|---|---|---|")
    return "\n".join((*head, *rows))


def robustness() -> str:
    """Return the accuracies on corrupted test faces."""
    found = {name: measured(name)["robustness"] for name in SHIPPED}
    rows = []
    for corruption, points in found["ferplus"].items():
        rows.append(_row(f"**{corruption}**", [f"{point['level']:g}" for point in points]))
        for name, curves in found.items():
            accuracies = [f"{point['accuracy']:.3f}" for point in curves[corruption]]
            rows.append(_row(f"`{name}`", accuracies))
    width = max(map(len, found["ferplus"].values()))
    head = ("|" + " |" * (width + 1), "|---" * (width + 1) + "|")
    return "\n".join((*head, *rows))


def _row(head: str, cells: list[str]) -> str:
    return f"| {' | '.join((head, *cells))} |"


def measured(name: str) -> dict[str, Any]:
    """Return what `training report` wrote of a shipped checkpoint; of another it is of no use."""
    folder = RESULTS / f"attention-fer-{name}"
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    version = load_checkpoint(SHIPPED[name]).manifest.version
    if results["checkpoint"]["version"] != version:
        raise SystemExit(f"{folder} is of another checkpoint; run python -m training report")
    return results


def ablation() -> str:
    """Return the paper's table, as trained here."""
    return summarise(_runs())


def geometry() -> str:
    """Return what the spatial transformer brings on moved faces."""
    return summarise_geometry(_runs())


def _runs() -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]]
    rows = json.loads((RESULTS / "ablation/ablation.json").read_text())["rows"]
    return rows


def serving() -> str:
    """Return how many requests the service and its peers answer on two cores."""
    return report.summary(report.read(SERVING))


def serving_on_gpu() -> str:
    """Return the same on a GPU host."""
    return report.summary(report.read(SERVING_ON_GPU))


def speed() -> str:
    """Return in a sentence how fast the service is, on a CPU and on a GPU host."""
    small, large = (report.headline(report.read(path)) for path in (SERVING, SERVING_ON_GPU))
    return f"From 64 connections it answers {small}, or {large}."


def metrics() -> str:
    """Return the table of the service's metrics."""
    registry = CollectorRegistry()
    Metrics(registry)
    rows = [
        f"| `{family.name}{'_total' if family.type == 'counter' else ''}` | {family.type} "
        f"| {family.documentation.removesuffix('.')} |"
        for family in sorted(registry.collect(), key=lambda family: family.name)
        if family.name.startswith("fer_")
    ]
    return "\n".join(("| metric | type | |", "|---|---|---|", *rows))


def settings() -> str:
    """Return the table of the service's settings."""
    rows = [f"| `{key}` | `{default}` | {meaning} |" for key, default, meaning in describe()]
    return "\n".join(("| variable | default | |", "|---|---|---|", *rows))


def errors() -> str:
    """Return the table of all ways to fail."""
    kinds = sorted(ServiceError.__subclasses__(), key=lambda kind: (kind.status, kind.code))
    rows = [f"| {kind.status} | `{kind.code}` | {_meaning(kind)} |" for kind in kinds]
    return "\n".join(("| status | code | |", "|---|---|---|", *rows))


def _meaning(kind: type[ServiceError]) -> str:
    return (kind.__doc__ or "").strip().removesuffix(".")


BLOCKS = {
    block.__name__: block
    for block in (
        *(ablation, agreement, calibration, checkpoints, errors, geometry, metrics, prior, priors),
        *(robustness, serving, serving_on_gpu, settings, speed),
    )
} | {name: partial(figures, name) for name in SHIPPED}
DOCUMENTS = {
    "README.md": ("checkpoints", "prior", "speed"),
    "benchmarks/results/README.md": ("serving", "serving_on_gpu"),
    "docs/ablation.md": ("ablation", "geometry"),
    "docs/api.md": ("errors", "metrics"),
    "docs/configuration.md": ("settings",),
    "docs/decisions/0010-calibration.md": ("calibration",),
    "docs/decisions/0013-prior.md": ("priors",),
    "docs/model-card.md": (*SHIPPED, "agreement", "calibration", "priors", "robustness"),
}
VERSIONED = {
    "CITATION.cff": r"(?m)^version: (.*)$",
    "docker/Dockerfile": r"(?m)^ARG VERSION=(.*)$",
}
"""Files that cannot read the version from the code, and where in them it stands."""
RUNBOOK = "docker/prometheus/consoles/alerts.html"
KUBERNETES_RULES = "docker/kubernetes/components/monitoring/rules.yaml"
_RULES_HEAD = """\
# Written by docs/quote.py from docker/prometheus/recording.yml and alerts.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: attention-fer
  labels:
    app.kubernetes.io/name: attention-fer
spec:
  groups:
"""


def kubernetes_rules() -> str:
    """Return Prometheus' rules as a resource of the Prometheus Operator."""
    files = (ROOT / "docker/prometheus" / name for name in ("recording.yml", "alerts.yml"))
    groups = (file.read_text().partition("\ngroups:\n")[2].rstrip() for file in files)
    return _RULES_HEAD + "\n\n".join(textwrap.indent(text, "  ") for text in groups) + "\n"


def quoted(document: str) -> str:
    """Return a document with its blocks, or its version, written anew."""
    if document == RUNBOOK:
        return runbook.render((ROOT / runbook.SOURCE).read_text())
    if document == KUBERNETES_RULES:
        return kubernetes_rules()
    text = (ROOT / document).read_text()
    if document in VERSIONED:
        return _with_version(document, text)
    for name in DOCUMENTS[document]:
        head, begin, rest = text.partition(f"<!-- begin: {name} -->\n")
        _, end, tail = rest.partition(f"<!-- end: {name} -->")
        if not (begin and end):
            raise SystemExit(f"{document}: the marks of {name!r} are not there")
        text = f"{head}{begin}{BLOCKS[name]()}\n{end}{tail}"
    return text


def _with_version(document: str, text: str) -> str:
    found = re.search(VERSIONED[document], text)
    if found is None:
        raise SystemExit(f"{document}: no line has the version")
    return text[: found.start(1)] + __version__ + text[found.end(1) :]


def main() -> None:
    """Write the blocks and the versions, or check them."""
    written = (*DOCUMENTS, *VERSIONED, RUNBOOK, KUBERNETES_RULES)
    changed = [name for name in written if quoted(name) != (ROOT / name).read_text()]
    if sys.argv[1:] == ["--check"]:
        said = f"out of date: {', '.join(changed)}; run python docs/quote.py"
        sys.exit(said if changed else 0)
    for name in changed:
        (ROOT / name).write_text(quoted(name))


if __name__ == "__main__":
    main()
