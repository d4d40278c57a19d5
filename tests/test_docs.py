"""What the documents say is what the code does."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_documents_quote_the_checkpoint_and_the_settings() -> None:
    done = subprocess.run(
        [sys.executable, "docs/quote.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_architecture_names_every_module() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    named = set(re.findall(r"`(?:\w+/)*(\w+)(?:\.py)?`", text))
    paths = (*ROOT.glob("service/**/*.py"), *ROOT.glob("training/*.py"))
    modules = {path.stem for path in paths if path.parent.name != "client"}
    assert modules - {"__init__"} <= named
