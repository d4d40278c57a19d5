"""Tests of `service.telemetry.shared_metrics`: what a scrape sees of several processes."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from service.telemetry.shared_metrics import (
    FOLDER_VARIABLE,
    aggregate_registry,
    prepare_metric_files,
    retire_metrics,
)

# A process of the service: it declares the metrics, and records what it is told.
PROGRAM = """
import json, sys
from pathlib import Path
from prometheus_client import CollectorRegistry
from service.telemetry.metrics import Metrics
from service.telemetry.shared_metrics import prepare_metric_files

prepare_metric_files(Path(sys.argv[1]), int(sys.argv[2]))
metrics = Metrics(CollectorRegistry())
for name, value in json.loads(sys.argv[3]).items():
    getattr(metrics, name).set(value)
metrics.describe_model("fake", "0", "cpu", "training", ["happy"])
metrics.engine_failures.inc(int(sys.argv[2]) + 1)
"""


@dataclass(frozen=True)
class Live:
    """The live processes, as the registry of workers tells them."""

    folder: Path
    ids: Mapping[int, int]

    def processes(self) -> Mapping[int, int]:
        return self.ids

    def name(self, number: int) -> str:
        return f"worker-{number}"


def record(folder: Path, number: int, gauges: Mapping[str, float]) -> int:
    """Record gauges in a new process; returns its id."""
    arguments = [sys.executable, "-c", PROGRAM, str(folder), str(number), json.dumps(gauges)]
    process = subprocess.Popen(arguments, env=os.environ | {FOLDER_VARIABLE: str(folder)})
    assert process.wait(60) == 0
    return process.pid


def scrape(folder: Path) -> CollectorRegistry:
    return aggregate_registry(Live(folder, {0: os.getpid()}))


SHARED = {"queue_faces": 1, "queue_limit_faces": 64, "connections": 3, "engines": 1}
LATEST = {"ready": 1, "workers_ready": 2}
LARGEST = {"batch_limit_faces": 8, "workers": 2}


def test_gauges_and_counts_are_right_over_several_processes(tmp_path: Path) -> None:
    first = record(tmp_path, 0, SHARED | LATEST | LARGEST)
    record(tmp_path, 1, {name: 2 * value for name, value in (SHARED | LARGEST).items()})
    record(tmp_path, 1, dict.fromkeys(LATEST, 0))

    sample = scrape(tmp_path).get_sample_value
    assert {name: sample(f"fer_{name}") for name in SHARED} == {
        name: 3 * value for name, value in SHARED.items()
    }
    assert {name: sample(f"fer_{name}") for name in LATEST} == dict.fromkeys(LATEST, 0)
    assert {name: sample(f"fer_{name}") for name in LARGEST} == {
        name: 2 * value for name, value in LARGEST.items()
    }
    model = {"name": "fake", "version": "0", "device": "cpu", "prior": "training"}
    assert sample("fer_model_info", model) == 1
    assert sample("fer_engine_failures_total") == 1 + 2 + 2

    retire_metrics(tmp_path, 0, first)
    sample = scrape(tmp_path).get_sample_value
    assert sample("fer_queue_faces") == 2  # it holds no faces any more
    assert sample("fer_engine_failures_total") == 5
    record(tmp_path, 0, {})  # its successor continues the count
    assert scrape(tmp_path).get_sample_value("fer_engine_failures_total") == 6


def test_figures_of_a_process_have_its_slot(tmp_path: Path) -> None:
    memory = scrape(tmp_path).get_sample_value("process_resident_memory_bytes", {"worker": "0"})
    assert memory is not None
    assert memory > 1 << 20


def test_a_scrape_succeeds_while_a_process_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, 0, {})
    allocate, seen = os.posix_fallocate, []

    def scrape_first(descriptor: int, offset: int, size: int) -> None:
        seen.append(scrape(tmp_path).get_sample_value("fer_engine_failures_total"))
        allocate(descriptor, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", scrape_first)
    prepare_metric_files(tmp_path, 1)
    assert set(seen) == {1}
    assert scrape(tmp_path).get_sample_value("fer_engine_failures_total") == 1


def test_files_without_space_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        prepare_metric_files(tmp_path / "none", 0)
