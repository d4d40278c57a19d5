"""Tests of `service.engine.cuda.buckets`."""

import pytest

from service.engine.cuda.buckets import BufferPool, buckets, find_bucket


@pytest.mark.parametrize(
    ("max_batch", "sizes"),
    [(1, (1,)), (2, (1, 2)), (3, (1, 2, 3)), (8, (1, 2, 4, 8)), (9, (1, 2, 4, 8, 9))],
)
def test_sizes_double_up_to_the_largest(max_batch: int, sizes: tuple[int, ...]) -> None:
    assert buckets(max_batch) == sizes


@pytest.mark.parametrize("max_batch", [1, 7, 32, 100, 256])
def test_every_batch_fits_and_at_most_half_of_it_is_padding(max_batch: int) -> None:
    sizes = buckets(max_batch)
    for count in range(1, max_batch + 1):
        size = sizes[find_bucket(sizes, count)]
        assert count <= size < 2 * count


@pytest.mark.parametrize("count", [0, 33])
def test_what_no_size_holds_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} faces, expected 1 to 32"):
        find_bucket(buckets(32), count)


def test_turns_are_taken_in_order_and_no_more_than_there_are() -> None:
    turns = BufferPool(("a", "b"))
    assert (turns.take(), turns.take()) == ("a", "b")
    with pytest.raises(RuntimeError, match="more batches were begun"):
        turns.take()
    turns.release("b")
    turns.release("a")
    assert (turns.take(), turns.take()) == ("b", "a")
