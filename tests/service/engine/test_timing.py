"""Tests of `service.engine.timing`, with an engine and a clock made up."""

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engine.timing import batch_seconds, largest


class TimedEngine:
    """Its clock goes on by what a batch takes: 2 ms, and 1 ms a face."""

    def __init__(self, *, first_s: float = 0.0) -> None:
        self.now = 0.0
        self.busy_s = 0.0
        self.first_s = first_s
        self.batches: list[int] = []

    def clock(self) -> float:
        return self.now

    def infer(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert faces.dtype == np.uint8
        assert faces.shape[1:] == (4, 6)
        set_up_s = 0.0 if len(faces) in self.batches else self.first_s
        self.batches.append(len(faces))
        self.now += 2e-3 + 1e-3 * len(faces) + self.busy_s + set_up_s
        return np.zeros((len(faces), 8), np.float32)


@pytest.mark.parametrize(
    ("max_batch", "sizes"),
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (8, [1, 2, 4, 8]), (24, [1, 2, 4, 8, 16, 24])],
)
def test_the_powers_of_two_and_the_limit_are_timed(max_batch: int, sizes: list[int]) -> None:
    engine = TimedEngine()
    seconds = batch_seconds(engine.infer, 4, 6, max_batch, engine.clock, budget_s=0)
    assert list(seconds) == sizes
    assert list(seconds.values()) == pytest.approx([2e-3 + 1e-3 * size for size in sizes])


def test_the_first_run_of_a_size_does_not_count() -> None:
    engine = TimedEngine(first_s=3.0)
    seconds = batch_seconds(engine.infer, 4, 6, 2, engine.clock, budget_s=0)
    assert seconds == pytest.approx({1: 3e-3, 2: 4e-3})
    assert engine.batches == [1, 2, 1, 2]


def test_the_least_of_the_times_counts() -> None:
    engine = TimedEngine()

    def busy_at_first(faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        engine.busy_s = 0.05 if len(engine.batches) < 4 else 0.0
        return engine.infer(faces)

    seconds = batch_seconds(busy_at_first, 4, 6, 2, engine.clock, budget_s=0.15)
    assert seconds == pytest.approx({1: 3e-3, 2: 4e-3})


def test_it_ends_when_the_time_is_over() -> None:
    engine = TimedEngine()
    batch_seconds(engine.infer, 4, 6, 32, engine.clock, budget_s=1.0)
    a_round = 6 * 2e-3 + 63 * 1e-3
    assert 1.0 + a_round <= engine.now < 1.0 + 3 * a_round  # the first round sets up


@pytest.mark.parametrize(("device", "size"), [("cpu", 32), ("cuda:1", 256)])
def test_a_gpu_may_want_larger_batches(device: str, size: int) -> None:
    assert largest(device) == size
