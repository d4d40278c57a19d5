import logging
import stat
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from tests.training.synthetic import noise
from training.samples import (
    DataError,
    Samples,
    cache_folder,
    cache_path,
    cached,
    cached_files,
    kept_of,
)


def make() -> Samples:
    labels = np.array([0, 1, 1], np.uint8)
    parts = np.array([0, 1, 2], np.uint8)
    return Samples(noise(3), labels, parts, ("a", "b"), "f" * 64, ("1 file left out: é",))


def never() -> Samples:
    raise AssertionError("read although cached")


def assert_same(left: Samples, right: Samples) -> None:
    for name in ("faces", "labels", "parts"):
        assert np.array_equal(getattr(left, name), getattr(right, name))
        assert getattr(left, name).dtype == getattr(right, name).dtype
    for name in ("emotions", "fingerprint", "notes"):
        assert getattr(left, name) == getattr(right, name)


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


def test_a_folder_that_is_read_only_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert_same(cached(tmp_path / "file" / "x.npz", "key", make), make())
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert_same(cached(tmp_path / "inner" / "x.npz", "key", make), make())
    tmp_path.chmod(stat.S_IRWXU)


def test_the_cache_lies_in_the_user_s_cache_folder_and_nobody_else_may_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    folder = tmp_path / "own"
    folder.mkdir()
    path = cache_path(folder)
    assert path is not None
    assert path.parent == tmp_path / "xdg/attention-fer/faces"
    assert path.name.startswith("own-")
    assert cache_path(tmp_path / "other" / "own") != path
    monkeypatch.chdir(folder)
    assert cache_path(Path()) == path
    cached(path, "key", make)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert cached_files() == [path]


def test_a_relative_cache_folder_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache/attention-fer/faces"


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    with mock.patch("pwd.getpwuid", side_effect=KeyError("uid not found")):
        assert cache_folder() is None
        assert cached_files() == []
        assert cache_path(Path("a.csv")) is None
    assert_same(cached(None, "key", make), make())


def test_an_older_release_s_cache_beside_the_data_is_found(tmp_path: Path) -> None:
    old = tmp_path / "a.csv.cache.npz"
    old.write_bytes(b"faces")
    assert kept_of(tmp_path / "a.csv") == [old]
    assert kept_of(tmp_path / "b.csv") == []
