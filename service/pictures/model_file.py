"""The face detector's weights: taken once out of a wheel of the package index, kept in a cache.

    python -m service.pictures.model_file [--out FILE] [--wheel FILE]

MediaPipe's BlazeFace (Bazarevsky et al. 2019, arXiv:1907.05047; Apache-2.0) is published inside
mediapipe's wheel, of which 0.10.21 is the last that has it. The wheel is asked for by its hash, and
so is the file in it; nothing of it is installed or run. Standard library alone, because set-up and
the image's build run this before anything else is there.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

FILE_NAME = "face_detection_short_range.tflite"
_SHA256 = "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8"
_MEMBER = f"mediapipe/modules/face_detection/{FILE_NAME}"
_REQUIREMENT = (
    "mediapipe==0.10.21 "
    "--hash=sha256:05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3"
)
# Of one platform, whichever this is: only the data in it is wanted, and it has one hash.
_PLATFORM = ("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11")


class ModelFileError(Exception):
    """The weights cannot be had, or are others; the message says what to do."""


def default_path() -> Path:
    """Return where the weights are kept: under XDG_CACHE_HOME, or ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "attention-fer" / FILE_NAME


def read_model(path: Path) -> bytes:
    """Return the weights.

    Args:
        path: Where they are kept.

    Raises:
        ModelFileError: There are none, or other ones.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"{path}: {error.strerror}; `python -m service.pictures.model_file` fetches it"
        ) from error
    _check(content, path)
    return content


def fetch(path: Path, wheel: Path | None = None) -> None:
    """Put the weights where they are kept; they appear whole or not at all.

    Args:
        path: Where that is.
        wheel: mediapipe's wheel, where it is at hand; else the package index has it.

    Raises:
        ModelFileError: The wheel cannot be downloaded, or is another.
        OSError: The file cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        content = _extract(wheel or _download(Path(folder)))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def _download(folder: Path) -> Path:
    wanted = folder / "requirements.txt"
    wanted.write_text(_REQUIREMENT + "\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary=:all:", "--implementation", "cp", *_PLATFORM]
    command += ["--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["pip said nothing"]
        raise ModelFileError(
            f"mediapipe 0.10.21 cannot be downloaded ({said[-1]}); give it with --wheel FILE"
        )
    return next(folder.glob("*.whl"))


def _extract(wheel: Path) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(_MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"{wheel}: not mediapipe 0.10.21's wheel") from error
    _check(content, wheel)
    return content


def _check(content: bytes, path: Path) -> None:
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise ModelFileError(f"{path}: not the detector that this release was tested with")


def main(arguments: list[str] | None = None) -> int:
    """Fetch the weights, unless they are there.

    Returns:
        The exit status: 0 they are there, 1 they cannot be had.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=default_path(), help="(%(default)s)")
    parser.add_argument("--wheel", type=Path, help="mediapipe 0.10.21's, instead of the index's")
    options = parser.parse_args(arguments)
    try:
        read_model(options.out)
    except ModelFileError:
        try:
            fetch(options.out, options.wheel)
        except (ModelFileError, OSError) as error:
            print(f"face detector: {error}", file=sys.stderr)  # noqa: T201
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
