"""Tests of `benchmarks.serving.ceiling` and of what a GPU host changes in the benchmark."""

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.serving import ceiling, environment, server
from benchmarks.serving.load import threads_for
from benchmarks.serving.pictures import PICTURES
from benchmarks.serving.rows import hardware
from benchmarks.serving.server import Variant


def one(device: str, decode_ms: float, forward_ms: dict[str, float]) -> dict[str, Any]:
    return {
        "device": device,
        "decode_ms": dict.fromkeys(PICTURES, decode_ms),
        "forward_ms": forward_ms,
    }


@pytest.mark.parametrize(
    ("device", "decode_ms", "most"),
    [
        ("cpu", 1.0, 4 * 1e3 / (1.0 + 3.0)),  # the cores do both
        ("cuda", 1.0, 1e3 / 3.0),  # the device is the limit
        ("cuda", 24.0, 4 * 1e3 / 24.0),  # the decoders are
    ],
)
def test_the_most_that_is_possible(device: str, decode_ms: float, most: float) -> None:
    asked: list[tuple[str, int]] = []

    def measured(engine: str, processes: int, _: float) -> list[dict[str, Any]]:
        asked.append((engine, processes))
        forward = {"1": 9.0, "8": 3.0} if engine == "ours" else {"1": 0.0, "8": 0.0}
        return [one(device, decode_ms, forward)] * processes

    found = ceiling.measure("ours", 4, 1.0, measured)
    assert found["requests_per_s"]["256"] == pytest.approx(most)
    assert found["best_batch"] == 8
    # On a GPU the cores decode beside it, and one process has the network.
    assert asked == [("ours", 1), ("nothing" if device == "cuda" else "ours", 4)]


def test_two_batches_are_in_flight_where_the_engine_can() -> None:
    begun, finished = [], []

    def begin(faces: int) -> Any:
        begun.append(faces)
        return lambda: finished.append(faces)

    model = type("Model", (), {"begin": staticmethod(begin), "infer": None})()
    infer = ceiling.in_flight(model)
    for number in range(3):
        infer(number)  # type: ignore[arg-type]
    assert (begun, finished) == ([0, 1, 2], [0, 1])


@pytest.fixture
def installed() -> Iterator[None]:
    environment.use_installed()
    yield
    environment.use_installed(False)


def test_a_peer_has_an_environment_of_its_own() -> None:
    assert environment.python_of("bentoml") != environment.python_of("ours") != sys.executable


@pytest.mark.usefixtures("installed")
def test_what_is_installed_is_used_where_nothing_can_be() -> None:
    assert environment.python_of("bentoml") == environment.python_of("ours") == sys.executable
    assert environment.prepare(["bentoml"]) == {}
    assert environment.versions("ours", ("typing-extensions",)).keys() == {
        "typing-extensions",  # whose own metadata spell it with an underscore
        "torch",
    }


def test_servers_hear_of_the_device_and_of_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICE", "cuda:1")
    monkeypatch.setenv("PYTHONPATH", "/some/packages")
    environ = server.environ_of(Variant("ours", "ours", 2), 8000, crops=False)
    assert environ["DEVICE"] == "cuda:1"
    assert environ["PYTHONPATH"].endswith(":/some/packages")


def test_a_gpu_is_named_and_a_thread_of_wrk_serves_four_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = {"cores": 16, "cpu": "some", "gpu": "a GPU"}
    assert hardware(machine) == "16 cores of some and one a GPU"
    assert hardware(machine | {"gpu": None}) == hardware({"cores": 16, "cpu": "some"})
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    assert [threads_for(count) for count in (1, 2, 64)] == [1, 2, 4]
