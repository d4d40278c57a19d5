"""Writes into the documents what code and checkpoint say, so that they cannot drift.

usage: python docs/quote.py           write the blocks between `begin` and `end` marks anew
       python docs/quote.py --check   exit with 1 if that would change anything
"""

import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from service.config import SHIPPED, describe  # noqa: E402
from service.errors import ServiceError  # noqa: E402
from training.model.checkpoint import load_checkpoint  # noqa: E402
from training.table import tabulate  # noqa: E402


def figures(name: str) -> str:
    """Return a shipped checkpoint's figures, from its own header."""
    manifest = load_checkpoint(SHIPPED[name]).manifest
    table = tabulate(manifest.metrics, manifest.emotions)
    size = SHIPPED[name].stat().st_size / 1e6
    lines = [f"{manifest.name} {manifest.version}", *table.splitlines(), f"{size:.1f} MB on disk"]
    return "\n".join(f"    {line}".rstrip() for line in lines)


def settings() -> str:
    """Return the table of the service's settings."""
    rows = [f"| `{key}` | `{default}` | {meaning} |" for key, default, meaning in describe()]
    return "\n".join(("| variable | default | |", "|---|---|---|", *rows))


def errors() -> str:
    """Return the table of all ways to fail."""
    kinds = sorted(ServiceError.__subclasses__(), key=lambda kind: (kind.status, kind.code))
    rows = [f"| {kind.status} | `{kind.code}` | {_meaning(kind)} |" for kind in kinds]
    return "\n".join(("| status | code | |", "|---|---|---|", *rows))


def _meaning(kind: type[ServiceError]) -> str:
    return (kind.__doc__ or "").strip().removesuffix(".")


BLOCKS = {"errors": errors, "settings": settings} | {
    name: partial(figures, name) for name in SHIPPED
}
DOCUMENTS = {
    "README.md": (*SHIPPED, "settings"),
    "docs/api.md": ("errors",),
    "docs/model-card.md": tuple(SHIPPED),
}


def quoted(document: str) -> str:
    """Return a document with its blocks written anew."""
    text = (ROOT / document).read_text()
    for name in DOCUMENTS[document]:
        head, begin, rest = text.partition(f"<!-- begin: {name} -->\n")
        _, end, tail = rest.partition(f"<!-- end: {name} -->")
        if not (begin and end):
            raise SystemExit(f"{document}: the marks of {name!r} are not there")
        text = f"{head}{begin}{BLOCKS[name]()}\n{end}{tail}"
    return text


def main() -> None:
    """Write the blocks, or check them."""
    changed = [name for name in DOCUMENTS if quoted(name) != (ROOT / name).read_text()]
    if sys.argv[1:] == ["--check"]:
        said = f"out of date: {', '.join(changed)}; run python docs/quote.py"
        sys.exit(said if changed else 0)
    for name in changed:
        (ROOT / name).write_text(quoted(name))


if __name__ == "__main__":
    main()
