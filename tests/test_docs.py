"""What the documents say is what the code does, and their links lead somewhere."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SKIPPED = {".venv", ".cache", ".pytest_cache", "runs", "node_modules"}
MOST_LINES_OF_README = 130


def documents() -> list[Path]:
    paths = sorted(ROOT.rglob("*.md"))
    return [path for path in paths if not SKIPPED & set(path.relative_to(ROOT).parts)]


def prose(path: Path) -> str:
    """Return a document without its code, in which brackets are no links and # no headings."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^ {4,}.*$", "", text, flags=re.MULTILINE)


def links(path: Path) -> list[str]:
    text = re.sub(r"`[^`\n]*`", "", prose(path))
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    plain = (re.sub(r"\]\([^)]*\)", "", title) for title in titles)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in plain}


def broken(path: Path) -> Iterator[str]:
    """Yield the relative links of a document that lead nowhere."""
    for target in links(path):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        if not file.exists() or (anchor and anchor not in anchors(file)):
            yield target


def test_documents_quote_code_checkpoints_and_results() -> None:
    done = subprocess.run(
        [sys.executable, "docs/quote.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    assert list(broken(path)) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One\n\n    # no heading\n\n## Two, or `three`\n")
    path = tmp_path / "document.md"
    path.write_text(
        "# Here\n\n[a](other.md#two-or-three) [b](#here) [c](https://example.org/#x) `[d](e)`\n"
        "[f](missing.md) [g](other.md#no-heading) [h](#there)\n"
        '<img src="missing.png">\n'
    )
    assert list(broken(path)) == ["missing.md", "other.md#no-heading", "#there", "missing.png"]


def test_documents_that_code_names_exist() -> None:
    sources = [path for top in ("service", "training") for path in (ROOT / top).rglob("*.py")]
    document = re.compile(r"\bdocs/(?:decisions/[\w-]+|[\w/-]+\.md)")
    named = {name for path in sources for name in document.findall(path.read_text())}
    assert named
    assert {name for name in named if not any(ROOT.glob(f"{name}*"))} == set()


def test_readme_is_a_front_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= MOST_LINES_OF_README


def test_the_index_names_every_decision() -> None:
    folder = ROOT / "docs/decisions"
    records = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text()) == records
    for record in records:
        text = (folder / record).read_text()
        assert text.startswith(f"# {int(record[:4])}. "), record
        for part in ("**Question.**", "**Figures.**", "**Outcome.**"):
            assert part in text, (record, part)


def test_architecture_names_every_module() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"`(?:\w+/)*(\w+)(?:\.py)?`", text))
    paths = (*ROOT.glob("service/**/*.py"), *ROOT.glob("training/*.py"))
    modules = {path.stem for path in paths if path.parent.name != "client"}
    assert modules - {"__init__"} <= named
