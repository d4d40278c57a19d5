import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.model.checkpoint import load_checkpoint, save_checkpoint
from training.model.labels import FER2013_EMOTIONS
from training.model.manifest import CheckpointError, Manifest, NetworkConfig
from training.model.network import AttentionFER

CONFIG = NetworkConfig(widths=(8, 16), depths=(1, 1))


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, AttentionFER, Manifest]:
    torch.manual_seed(0)
    network = AttentionFER(CONFIG)
    network.train()(torch.randn(8, 1, 48, 48))  # running statistics that are not the initial ones
    manifest = Manifest(
        "tiny", "1", CONFIG, FER2013_EMOTIONS, temperature=1.5, metrics={"test": {"accuracy": 0.5}}
    )
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(path, network, manifest, torch.float32)
    return path, network, manifest


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Write the file again with another manifest."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["attention_fer"])
    change(header)
    save_file(load_file(path), path, {"attention_fer": json.dumps(header)})


def test_what_is_saved_is_loaded(saved: tuple[Path, AttentionFER, Manifest]) -> None:
    path, network, manifest = saved
    checkpoint = load_checkpoint(path)
    images = torch.randn(4, 1, 48, 48)
    assert torch.equal(checkpoint.network(images).logits, network.eval()(images).logits)
    assert checkpoint.manifest == manifest
    assert not checkpoint.network.training


def test_half_precision_is_stored_in_half_the_bytes(
    saved: tuple[Path, AttentionFER, Manifest], tmp_path: Path
) -> None:
    path, network, manifest = saved
    half = tmp_path / "half.safetensors"
    save_checkpoint(half, network, manifest, torch.float16)
    assert half.stat().st_size < 0.7 * path.stat().st_size
    images = torch.randn(4, 1, 48, 48)
    close = load_checkpoint(half).network(images).logits
    torch.testing.assert_close(close, network.eval()(images).logits, atol=2e-2, rtol=1e-2)
    assert next(load_checkpoint(half).network.parameters()).dtype == torch.float32


def test_a_save_that_fails_leaves_the_old_file(
    saved: tuple[Path, AttentionFER, Manifest],
) -> None:
    path, network, manifest = saved
    before = path.read_bytes()
    unwritable = dataclasses.replace(manifest, metrics={"set": {1, 2}})
    with pytest.raises(TypeError):
        save_checkpoint(path, network, unwritable, torch.float32)
    assert path.read_bytes() == before


def test_refuses_to_describe_another_network(
    saved: tuple[Path, AttentionFER, Manifest],
) -> None:
    path, network, manifest = saved
    other = dataclasses.replace(manifest, network=dataclasses.replace(CONFIG, stn=False))
    with pytest.raises(ValueError, match="different configurations"):
        save_checkpoint(path, network, other, torch.float32)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors: no such file"):
        load_checkpoint(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_file_is_refused(
    saved: tuple[Path, AttentionFER, Manifest], share: float
) -> None:
    path = saved[0]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_checkpoint(path)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.safetensors"
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_checkpoint(path)


def test_somebody_elses_safetensors_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weights": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="not an attention-fer checkpoint"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda h: h.update(format=2), "format version 1"),
        (lambda h: h.pop("format"), "format version 1"),
        (lambda h: h.update(colour="red"), "field colour is unknown"),
        (lambda h: h.pop("temperature"), "field temperature is missing"),
        (lambda h: h.update(temperature="hot"), "temperature"),
        (lambda h: h.update(temperature=0), "temperature"),
        (lambda h: h.update(emotions=["joy"]), "1 distinct emotions for 7 classes"),
        (lambda h: h.update(emotions=["joy"] * 7), "1 distinct emotions for 7 classes"),
        (lambda h: h.update(emotions=[1] * 7), "emotions"),
        (lambda h: h.pop("network"), "network is missing"),
        (lambda h: h["network"].update(stn="false"), "stn"),
        (lambda h: h["network"].update(widths="ab"), "widths"),
        (lambda h: h["network"].update(widths=[8, 10**9]), "widths"),
        (lambda h: h["network"].update(depth=3), "field depth is unknown"),
        (lambda h: h["input_spec"].update(height=48.5), "height"),
        (lambda h: h["input_spec"].update(resample="nearest"), "resample"),
    ],
)
def test_a_manifest_that_is_not_understood_is_refused_by_name(
    saved: tuple[Path, AttentionFER, Manifest],
    change: Callable[[dict[str, Any]], None],
    named: str,
) -> None:
    path = saved[0]
    rewrite(path, change)
    with pytest.raises(CheckpointError, match=named) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.pop("classify.bias"), r"classify\.bias is missing"),
        (lambda t: t.update(extra=torch.zeros(1)), "extra is not of this network"),
        (
            lambda t: t.update({"classify.bias": torch.zeros(8)}),
            r"classify\.bias has shape \[8\], expected \[7\]",
        ),
        (
            lambda t: t.update({"classify.bias": torch.full((7,), torch.nan)}),
            r"classify\.bias is not all finite",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    saved: tuple[Path, AttentionFER, Manifest],
    change: Callable[[dict[str, torch.Tensor]], None],
    named: str,
) -> None:
    path = saved[0]
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError, match=named):
        load_checkpoint(path)
