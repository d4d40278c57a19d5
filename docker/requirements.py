"""Print what pyproject.toml requires, a line each, for the layer that an image's libraries are in.

All names in the arguments are looked up in the dependencies and in every extra; without names,
the dependencies are printed. Versions come from constraints.txt. Run at build time, with the
standard library alone.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path


def name_of(requirement: str) -> str:
    """Return the project that a requirement such as `pillow>=11.0` names."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return found[0]


def choose(path: Path, names: Iterable[str], without: Iterable[str]) -> Iterator[str]:
    """Yield requirements of a project.

    Args:
        path: Its pyproject.toml.
        names: Projects wanted, from its dependencies and extras; none means all dependencies.
        without: Projects left out.

    Raises:
        KeyError: A name, of either kind, that is not required: one of the two files is stale.
    """
    project = tomllib.loads(path.read_text())["project"]
    extras = project.get("optional-dependencies", {}).values()
    everything = {name_of(r): r for group in (project["dependencies"], *extras) for r in group}
    wanted = list(names) or [name_of(r) for r in project["dependencies"]]
    for name in without:
        everything[name]  # an unknown one raises
    yield from (everything[name] for name in wanted if name not in set(without))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--without", action="append", default=[])
    options = parser.parse_args()
    path = Path(__file__).parent / "pyproject.toml"
    try:
        for line in choose(path, options.names, options.without):
            print(line)  # noqa: T201 - its output is its purpose
    except KeyError as error:
        sys.exit(f"requirements: pyproject.toml does not require {error}")


if __name__ == "__main__":
    main()
