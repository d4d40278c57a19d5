"""Files that appear whole or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside its place, then move it there: a kill leaves the old one, or none.

    Args:
        path: Where the file belongs.
        write: Writes it to the path that it is given.

    Raises:
        OSError: It cannot be written.
    """
    part = path.with_name(path.name + ".part")
    write(part)
    part.replace(path)
