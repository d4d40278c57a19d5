import logging
import stat
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from tests.training.synthetic import noise
from training.samples import DataError, Samples, cache_path, cached


def make() -> Samples:
    labels = np.array([0, 1, 1], np.uint8)
    return Samples(noise(3), labels, np.array([0, 1, 2], np.uint8), ("a", "b"), "f" * 64)


def never() -> Samples:
    raise AssertionError("read although cached")


def assert_same(left: Samples, right: Samples) -> None:
    for name in ("faces", "labels", "parts"):
        assert np.array_equal(getattr(left, name), getattr(right, name))
        assert getattr(left, name).dtype == getattr(right, name).dtype
    assert (left.emotions, left.fingerprint) == (right.emotions, right.fingerprint)


def test_second_time_comes_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.cache.npz"
    assert_same(cached(path, "key", make), make())
    assert_same(cached(path, "key", never), make())
    assert list(tmp_path.iterdir()) == [path]


def test_another_key_reads_anew_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "x.cache.npz"
    cached(path, "old", make)
    with pytest.raises(AssertionError, match="read although cached"):
        cached(path, "new", never)
    cached(path, "new", make)
    assert_same(cached(path, "new", never), make())


def test_errors_of_the_reader_leave_no_file(tmp_path: Path) -> None:
    def fail() -> Samples:
        raise DataError("row 7")

    with pytest.raises(DataError, match="row 7"):
        cached(tmp_path / "x.cache.npz", "key", fail)
    assert list(tmp_path.iterdir()) == []


def test_any_damage_means_reading_anew(tmp_path: Path) -> None:
    path = tmp_path / "x.cache.npz"
    cached(path, "key", make)
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    damaged = [whole[:cut] for cut in generator.integers(0, len(whole), 40)]
    # Headers and directory, where damage takes the most ways: at both ends of the file.
    places = [*range(0, 400, 5), *range(len(whole) - 1500, len(whole), 11)]
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(generator.integers(8))
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        assert_same(cached(path, "key", make), make())


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "x.cache.npz"
    np.savez(path, key=np.array([object()], dtype=object), allow_pickle=True)
    assert_same(cached(path, "key", make), make())


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), OSError(28, "disk full")])
def test_where_nothing_can_be_written_a_note_is_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: OSError
) -> None:
    path = tmp_path / "x.cache.npz"
    with (
        caplog.at_level(logging.INFO, "training.samples"),
        mock.patch("training.samples.np.savez", side_effect=error),
    ):
        assert_same(cached(path, "key", make), make())
    assert f"the cache cannot be written ({error.strerror})" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_or_read_only_is_no_error(tmp_path: Path) -> None:
    assert_same(cached(tmp_path / "gone" / "x.npz", "key", make), make())
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert_same(cached(tmp_path / "x.npz", "key", make), make())
    tmp_path.chmod(stat.S_IRWXU)


def test_the_cache_lies_beside_the_data_and_is_ignored_by_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_path(tmp_path / "a.csv") == tmp_path / "a.csv.cache.npz"
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert cache_path(Path()) == tmp_path / "own.cache.npz"
