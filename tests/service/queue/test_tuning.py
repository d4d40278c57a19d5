"""Tests of `service.queue.tuning`."""

from service.queue.tuning import choose_batch_limit


def test_the_limit_is_the_smallest_of_the_best() -> None:
    assert choose_batch_limit({1: 0.008, 2: 0.012, 4: 0.020, 8: 0.032, 16: 0.0635}) == 8
    assert choose_batch_limit({1: 0.008, 2: 0.012, 4: 0.020, 8: 0.032, 16: 0.060}) == 16
    assert choose_batch_limit({1: 0.01, 2: 0.02, 4: 0.04}) == 1  # batches gain nothing
    assert choose_batch_limit({4: 0.0, 1: 0.0}) == 1  # quicker than the clock


def test_without_a_measurement_the_limit_is_a_usual_one() -> None:
    assert choose_batch_limit({}) == 32
