import io
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from service.client.sources import describe_skipped, find_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files of each name given, each with its name as its content."""
    return tmp_path


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def names(folder: Path, *given: str) -> list[str]:
    return [str(one.file.relative_to(folder)) for one in find_sources(given).sources]


def test_every_suffix_of_a_readable_format_is_taken(folder: Path) -> None:
    taken = "jpg jpeg jpe jfif pjpeg pjp png apng webp avif bmp dib gif tif tiff JPG Png"
    files = sorted(f"a.{suffix}" for suffix in taken.split())
    fill(folder, *files)
    assert names(folder, str(folder)) == files
    assert not find_sources([str(folder)]).skipped


def test_what_is_not_taken_is_counted(folder: Path) -> None:
    fill(folder, "a.heic", "sub/b.HEIC", "c.jxl", "notes.txt", "README", "._d.jpg", "d.jpg")
    fill(folder, ".DS_Store", "Thumbs.db", "e.jpg.part")
    found = find_sources([str(folder)])
    assert [source.file.name for source in found.sources] == ["d.jpg"]
    assert describe_skipped(found.skipped).startswith("9 files skipped: .heic 2, ")
    assert found.skipped == {
        ".heic": 2,
        ".jxl": 1,
        ".txt": 1,
        "without suffix": 2,
        "._*": 1,
        ".db": 1,
        ".part": 1,
    }


def test_how_skipped_files_are_described() -> None:
    assert describe_skipped({".heic": 1}) == "1 file skipped: .heic 1"
    assert describe_skipped({".txt": 1, ".heic": 2}) == "3 files skipped: .heic 2, .txt 1"


def test_what_is_named_itself_is_always_taken(folder: Path) -> None:
    fill(folder, "a.heic", "b.txt")
    assert names(folder, f"{folder}/a.heic", f"{folder}/*.txt") == ["a.heic", "b.txt"]


def test_patterns_take_folders_whole(folder: Path) -> None:
    fill(folder, "2025/a.png", "2025/deep/b.png", "2026/c.png", "2026/d.txt")
    assert names(folder, f"{folder}/20*") == ["2025/a.png", "2025/deep/b.png", "2026/c.png"]
    assert names(folder, f"{folder}/**/b.png") == ["2025/deep/b.png"]


def test_a_file_whose_name_is_a_pattern(folder: Path) -> None:
    fill(folder, "face[1].png", "face1.png")
    assert names(folder, f"{folder}/face[1].png") == ["face[1].png"]


def test_a_pattern_without_matches_is_told(folder: Path) -> None:
    found = find_sources([f"{folder}/*.png"])
    assert (found.sources, found.unmatched) == ([], [f"{folder}/*.png"])


def test_each_picture_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, "a.png", "sub/b.png")
    monkeypatch.chdir(folder)
    given = ["a.png", "./a.png", "sub/../a.png", str(folder / "a.png"), ".", "sub"]
    assert [str(one.file) for one in find_sources(given).sources] == ["a.png", "sub/b.png"]


def test_missing_and_unusual_names_stay_for_an_error_later(folder: Path) -> None:
    fill(folder, "a.png")
    given = [f"{folder}/none.png", f"{folder}/a.png/below.png", str(folder / ("n" * 300))]
    found = find_sources(given)
    assert [str(source.file) for source in found.sources] == given
    for source in found.sources:
        with pytest.raises(OSError, match=r"No such file|Not a directory|too long"):
            source.read()


def test_a_folder_that_cannot_be_read_stays_for_an_error_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, "open/a.png", "shut/b.png")
    real = os.scandir

    def scandir(path: str) -> object:  # root may read every folder
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert names(folder, str(folder)) == ["open/a.png", "shut"]


def test_pipes_and_folders_with_a_pictures_name_are_not_read(folder: Path) -> None:
    fill(folder, "album.jpg/a.png")
    os.mkfifo(folder / "pipe.jpg")
    found = find_sources([str(folder)])
    assert [source.file.name for source in found.sources] == ["a.png"]
    assert found.skipped == {"not a file": 1}


def test_a_link_to_nothing_stays_for_an_error_later(folder: Path) -> None:
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    assert names(folder, str(folder)) == ["gone.jpg"]


def test_names_that_are_not_utf8(folder: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    Path(folder, name).write_bytes(b"bytes")
    (source,) = find_sources([str(folder)]).sources
    assert os.fsencode(source.file.name) == b"caf\xe9.png"
    assert source.read() == b"bytes"


def test_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, "-")
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"from a pipe")))
    stdin, file = find_sources(["-", "./-", "-"]).sources
    assert (str(stdin.file), stdin.read()) == ("-", b"from a pipe")
    assert file.read() == b"-"


def test_no_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ValueError, match="no standard input"):
        find_sources(["-"])


def test_an_empty_name_is_not_the_current_folder() -> None:
    with pytest.raises(ValueError, match="empty"):
        find_sources([""])
