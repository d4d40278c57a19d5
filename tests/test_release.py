"""Package, API document, images, citation, changelog and tag have one version."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import service
from service.app import create_app
from service.config import Settings

ROOT = Path(__file__).parent.parent
VERSION = service.__version__
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


def releases() -> list[tuple[str, str]]:
    """Return version and date of every release in the changelog, the newest first."""
    return re.findall(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)$", CHANGELOG, re.MULTILINE)


def cited(name: str) -> str:
    found = re.search(rf'^{name}: "?([^"\n]+)"?$', (ROOT / "CITATION.cff").read_text(), re.M)
    assert found is not None, name
    return found[1]


def test_the_package_is_built_with_the_codes_version(tmp_path: Path) -> None:
    assert "version" not in PROJECT["project"]
    script = (
        "import os, sys; from setuptools import build_meta; os.chdir(sys.argv[1]); "
        "print(build_meta.prepare_metadata_for_build_wheel(sys.argv[2]))"
    )
    copy = tmp_path / "project"
    for name in ("service/__init__.py", "training/__init__.py", "pyproject.toml", "README.md"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        (copy / package.replace(".", "/")).mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", script, str(copy), str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    assert re.findall(r"^Version: (.*)$", metadata.read_text(), re.M) == [VERSION]


@pytest.mark.parametrize("package", ["service", "training"])
def test_the_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"][package]


def test_the_api_document_says_it() -> None:
    assert create_app(Settings()).openapi()["info"]["version"] == VERSION


def test_the_images_say_it() -> None:
    text = (ROOT / "docker/Dockerfile").read_text()
    declared, *stages = text.split("\nFROM ")
    assert re.findall(r"^ARG VERSION=(.+)$", declared, re.M) == [VERSION]
    for stage in stages:
        if "org.opencontainers.image.version" in stage:
            assert re.findall(r"^ARG VERSION\b.*$", stage, re.M) == ["ARG VERSION"]


def test_the_citation_says_it_and_its_day() -> None:
    assert (cited("version"), cited("date-released")) == releases()[0]


def test_the_changelog_ends_with_it_and_has_room_for_the_next() -> None:
    assert releases()[0][0] == VERSION
    assert re.findall(r"^## (.*)$", CHANGELOG, re.M)[0] == "Unreleased"


def test_the_tag_says_it_where_there_is_one() -> None:
    done = subprocess.run(
        ["git", "-C", str(ROOT), "tag", "--points-at", "HEAD", "v*"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("not a git checkout")
    assert set(done.stdout.split()) <= {f"v{VERSION}"}
