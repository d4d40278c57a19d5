import os
from pathlib import Path

import pytest

from service.client.copies import plan_copies, prepare_folder, write_copy

FULL = Path("/dev/full")  # takes no byte, as a disk that is full


def test_copies_lie_as_the_pictures_do() -> None:
    files = [Path("/p/a/1.jpg"), Path("/p/b/c/2.png")]
    copies = plan_copies(files, Path("drawn"), Path("shown"))
    assert list(copies.drawn.values()) == [Path("drawn/a/1.jpg.png"), Path("drawn/b/c/2.png.png")]
    assert list(copies.explained.values()) == [
        Path("shown/a/1.jpg.png"),
        Path("shown/b/c/2.png.png"),
    ]
    assert plan_copies(files, None, None).drawn == {}


def test_one_folder_for_both(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "x")
    for folder in (tmp_path / "x", tmp_path / "y" / ".." / "x", tmp_path / "link"):
        copies = plan_copies([Path("a.jpg")], tmp_path / "x", folder)
        assert [path.name for path in copies.drawn.values()] == ["a.jpg.png"]
        assert [path.name for path in copies.explained.values()] == ["a.jpg.explained.png"]


def test_no_copy_leaves_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copies = plan_copies([Path("a/../../b.png"), Path("c.png")], Path("out"), None)
    for target in copies.drawn.values():
        assert Path(os.path.abspath(target)).is_relative_to(tmp_path / "out")


@pytest.mark.parametrize(
    ("files", "draw", "explain"),
    [
        (["p/a", "p/a.png"], "p", None),  # the copy of the first has the name of the second
        (["p/a", "p/a.png"], None, "p"),
        (["p/a/x", "p/x"], "out", "out/a"),
        (["p/a", "p/a.explained"], "out", "out"),
    ],
)
def test_nothing_is_written_over(
    tmp_path: Path, files: list[str], draw: str | None, explain: str | None
) -> None:
    folders = [folder and tmp_path / folder for folder in (draw, explain)]
    with pytest.raises(ValueError, match="would be written over a picture or another copy"):
        plan_copies([tmp_path / file for file in files], *folders)  # type: ignore[arg-type]


def test_standard_input_has_a_name() -> None:
    (target,) = plan_copies([Path("-")], Path("out"), None).drawn.values()
    assert target == Path("out/stdin.png")


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_folders_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc")):
        with pytest.raises(OSError, match=r"File exists|Not a directory|No such file|denied"):
            prepare_folder(folder)


def test_a_copy_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_copy(tmp_path / "sub" / "a.png", b"content")
    assert (tmp_path / "sub" / "a.png").read_bytes() == b"content"
    if FULL.exists():
        (tmp_path / "b.png").symlink_to(FULL)
        with pytest.raises(OSError, match="No space left"):
            write_copy(tmp_path / "b.png", b"content")
        assert not (tmp_path / "b.png").is_symlink()


def test_what_cannot_be_opened_stays(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(IsADirectoryError):
        write_copy(tmp_path / "a.png", b"content")
    assert (tmp_path / "a.png").is_dir()
