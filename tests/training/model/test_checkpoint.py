import dataclasses
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.service.server_processes import only_line
from training.model.checkpoint import load_checkpoint, save_checkpoint
from training.model.labels import FER2013_EMOTIONS
from training.model.manifest import CheckpointError, Manifest, NetworkConfig
from training.model.network import AttentionFER

CONFIG = NetworkConfig(widths=(8, 16), depths=(1, 1))


EVEN = [0.1, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2]


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


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
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


def test_a_stated_prior_is_loaded(saved: tuple[Path, AttentionFER, Manifest]) -> None:
    path, network, manifest = saved
    stated = dataclasses.replace(manifest, prior=tuple(EVEN), temperatures={"uniform": 1.5})
    save_checkpoint(path, network, stated, torch.float32)
    assert load_checkpoint(path).manifest == stated


def test_a_checkpoint_of_before_priors_were_stated_has_none(
    saved: tuple[Path, AttentionFER, Manifest],
) -> None:
    path, _, manifest = saved
    rewrite(path, lambda h: (h.pop("prior"), h.pop("temperatures")))
    assert load_checkpoint(path).manifest == manifest
    assert manifest.prior is None


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
        (lambda h: h.update(colour="red"), "field 'colour' is unknown"),
        (lambda h: h.pop("temperature"), "field 'temperature' is missing"),
        (lambda h: h.update(temperature="hot"), "temperature"),
        (lambda h: h.update(temperature=0), "temperature"),
        (lambda h: h.update(emotions=["joy"]), "1 distinct emotions for 7 classes"),
        (lambda h: h.update(emotions=["joy"] * 7), "1 distinct emotions for 7 classes"),
        (lambda h: h.update(emotions=[1] * 7), "emotions"),
        (lambda h: h.pop("network"), "network is missing"),
        (lambda h: h["network"].update(stn="false"), "stn"),
        (lambda h: h["network"].update(widths="ab"), "widths"),
        (lambda h: h["network"].update(widths=[8, 10**9]), "widths"),
        (lambda h: h["network"].update(depth=3), "field 'depth' is unknown"),
        (lambda h: h["input_spec"].update(height=48.5), "height"),
        (lambda h: h["input_spec"].update(resample="nearest"), "resample"),
        (lambda h: h.update(prior=[0.5, 0.5]), "2 shares for 7 emotions"),
        (lambda h: h.update(prior=[0.0, 0.4, *[0.12] * 5]), "not positive"),
        (lambda h: h.update(prior=[0.2] * 7), "sum to 1"),
        (lambda h: h.update(prior="uniform"), "prior"),
        (lambda h: h.update(temperatures={"uniform": 1.0}), "for priors"),
        (lambda h: h.update(prior=EVEN, temperatures={"even": 1.0}), "for priors"),
        (lambda h: h.update(prior=EVEN, temperatures={"uniform": 0.0}), "temperature is 0"),
        (lambda h: h.update(prior=EVEN, temperatures={"uniform": "1"}), "temperatures"),
    ],
)
def test_a_manifest_that_is_not_understood_is_refused_by_name(
    saved: tuple[Path, AttentionFER, Manifest],
    change: Callable[[dict[str, Any]], object],
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
        (lambda t: t.update(extra=torch.zeros(1)), "'extra' is not of this network"),
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


# Hostile files: each is refused in one line, before what it claims has been allocated.


def write(path: Path, header: str | bytes, data: bytes = b"", length: int | None = None) -> None:
    """Write a safetensors file by hand: the header's length, the header, the tensors' bytes."""
    header = header.encode() if isinstance(header, str) else header
    size = len(header) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + header + data)


def refusal(path: Path) -> str:
    """Load a file that must be refused, in one printable line that names it; return the line."""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert said.isprintable()
    assert len(said) < len(str(path)) + 200
    return said


@pytest.fixture
def manifest(saved: tuple[Path, AttentionFER, Manifest]) -> dict[str, Any]:
    """A manifest as a file has it, of JSON's types alone."""
    from safetensors import safe_open

    with safe_open(saved[0], framework="pt") as file:
        found: dict[str, Any] = json.loads(file.metadata()["attention_fer"])
    return found


HUGE = {"widths": [4096] * 6, "depths": [64] * 6}


def claim(manifest: dict[str, Any], **network: Any) -> str:
    """Return the header of a file without tensors whose manifest claims such a network."""
    manifest["network"].update(network)
    return json.dumps({"__metadata__": {"attention_fer": json.dumps(manifest)}})


@pytest.mark.parametrize(
    "network",
    [HUGE, {"widths": [4096] * 6, "depths": [1] * 6}, {"widths": [8], "depths": [64]}],
    ids=["wide and deep", "wide", "deep"],
)
def test_a_network_is_compared_with_the_file_before_it_is_built(
    manifest: dict[str, Any], network: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "claims.safetensors"
    write(path, claim(manifest, **network))
    before = resource.getrusage(resource.RUSAGE_SELF)
    assert "tensor" in refusal(path)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    assert after.ru_maxrss - before.ru_maxrss < 16 * 1024, "kilobytes"


def test_tensors_of_another_size_are_not_read(
    saved: tuple[Path, AttentionFER, Manifest], tmp_path: Path
) -> None:
    """As many tensors as a network has whose every layer is far larger."""
    path = saved[0]
    rewrite(path, lambda h: h["network"].update(widths=[4096, 4096]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "expected [4096" in refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.float64, torch.bfloat16])
def test_tensors_of_another_dtype_are_refused_by_name(
    saved: tuple[Path, AttentionFER, Manifest], dtype: torch.dtype
) -> None:
    path = saved[0]
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors["classify.bias"] = tensors["classify.bias"].to(dtype)
    save_file(tensors, path, metadata)
    assert "tensor classify.bias is of dtype" in refusal(path)


def test_a_name_that_is_not_the_networks_is_shown_harmlessly(
    saved: tuple[Path, AttentionFER, Manifest],
) -> None:
    path = saved[0]
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path) | {"\x1b[2J\n" + "x" * 500: torch.zeros(1)}, path, metadata)
    assert "not of this network" in refusal(path)


DEEP = 100_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * DEEP, "manifest"),
        ("[" * DEEP + "]" * DEEP, "manifest"),
        ('{"a":' * DEEP, "manifest"),
        ("", "manifest"),
        ("null", "not an object"),
        ("[1]", "not an object"),
        ('"text"', "not an object"),
        ("9" * 5000, "manifest"),
        ("1e5", "not an object"),
        ("NaN", "manifest"),
        ("{", "manifest"),
        ("{} {}", "manifest"),
        ('{"format": 1, "format": 1}', "'format' is there twice"),
        ('{"format": NaN}', "NaN"),
        ('{"format": true}', "format version"),
        ('{"format": 1.0}', "format version"),
        ('{"\\ud800": 1, "format": 1}', "network is missing"),
        ('{"format": 1, "network": [' + "[" * 500 + "]" * 500 + "]}", "nested"),
    ],
)
def test_json_that_is_no_manifest_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "hostile.safetensors"
    write(path, json.dumps({"__metadata__": {"attention_fer": text.replace("\\\\", "\\")}}))
    assert said in refusal(path)


@pytest.mark.parametrize(
    "header",
    [
        "[" * DEEP,
        '{"__metadata__":' * DEEP,
        b'{"__metadata__":{"attention_fer":"\xff\xfe"}}',
        b'{"__metadata__":{"attention_fer":"\xed\xa0\x80"}}',
        '{"__metadata__":{"attention_fer":1}}',
        '{"__metadata__":[]}',
        '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F32","shape":[9999999999,9999999999],"data_offsets":[0,4]}}',
        '{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}',
        "{}",
        "",
    ],
)
def test_headers_that_are_no_safetensors_are_refused(tmp_path: Path, header: str | bytes) -> None:
    path = tmp_path / "hostile.safetensors"
    write(path, header)
    refusal(path)


@pytest.mark.parametrize("length", [0, 1, 7, 10**8, 2**31, 2**32, 2**62, 2**63, 2**64 - 1])
def test_a_header_of_an_absurd_length_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "hostile.safetensors"
    write(path, "{}", length=length)
    refusal(path)


def test_a_header_longer_than_any_of_ours_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "hostile.safetensors"
    entry = '"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    write(path, "{" + ",".join(entry % number for number in range(200_000)) + "}")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "header" in refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


NAMES = ["a\nb", "a\x00", "\x1b[31m", "\x7f", "a\u2028b", "\u202eb", "\ud800", "", "x" * 300]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:12])
@pytest.mark.parametrize("field", ["name", "version", "emotions"])
def test_names_that_cannot_be_shown_are_refused(
    saved: tuple[Path, AttentionFER, Manifest], field: str, name: str
) -> None:
    path = saved[0]
    value = [name, *FER2013_EMOTIONS[1:]] if field == "emotions" else name
    rewrite(path, lambda h: h.update({field: value}))
    assert field.removesuffix("s") in refusal(path)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Manifest)])
@pytest.mark.parametrize(
    "value",
    [None, True, -1, 10**30, 10**4000, 1.5, 1e308, "", "x", [], [[]], {}, {"a": {}}],
    ids=lambda value: json.dumps(value)[:12],
)
def test_fields_of_any_type_are_taken_or_refused(
    saved: tuple[Path, AttentionFER, Manifest], field: str, value: Any
) -> None:
    path = saved[0]
    rewrite(path, lambda h: h.update({field: value}))
    fits = (field, value) in [
        ("name", "x"), ("version", "x"), ("temperature", 1.5),
        ("prior", None), ("temperatures", {}),
    ]  # fmt: skip
    if fits or (field in ("metrics", "provenance") and isinstance(value, dict)):
        load_checkpoint(path)
    else:
        refusal(path)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400])
def test_figures_that_are_no_finite_numbers_are_refused(
    manifest: dict[str, Any], value: str, tmp_path: Path
) -> None:
    path = tmp_path / "hostile.safetensors"
    text = json.dumps(manifest).replace('"accuracy": 0.5', f'"accuracy": {value}')
    write(path, json.dumps({"__metadata__": {"attention_fer": text}}))
    assert "number" in refusal(path)


def test_loading_draws_no_random_numbers(saved: tuple[Path, AttentionFER, Manifest]) -> None:
    before = torch.get_rng_state()
    load_checkpoint(saved[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_loaded_no_longer_needs_the_file(
    saved: tuple[Path, AttentionFER, Manifest],
) -> None:
    path, network, _ = saved
    loaded = load_checkpoint(path).network
    path.write_bytes(b"\xff" * path.stat().st_size)  # in place: a mapped file would change
    images = torch.randn(2, 1, 48, 48)
    assert torch.equal(loaded(images).logits, network.eval()(images).logits)


@pytest.mark.parametrize("command", [["service"], ["training", "inspect"]], ids=" ".join)
def test_the_command_line_refuses_in_one_line(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "hostile.safetensors"
    write(path, json.dumps({"__metadata__": {"attention_fer": "[" * DEEP}}))
    options = ["--checkpoint", str(path)] if command[0] == "training" else []
    done = subprocess.run(
        [sys.executable, "-m", *command, *options],
        env={"PATH": "/usr/bin:/bin", "FER_CHECKPOINT": str(path), "FER_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert str(path) in only_line(done.stderr)


def test_loading_needs_nothing_of_torchs_compiler(
    saved: tuple[Path, AttentionFER, Manifest],
) -> None:
    """The service's image has no sympy, which torch imports for some operators on "meta"."""
    program = (
        "import sys; from pathlib import Path\n"
        "from training.model.checkpoint import load_checkpoint\n"
        "before = set(sys.modules); load_checkpoint(Path(sys.argv[1]))\n"
        "print(*sorted({n.split('.')[0] for n in set(sys.modules) - before}))"
    )
    command = [sys.executable, "-c", program, str(saved[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert not {"sympy", "mpmath", "networkx", "triton"} & set(done.stdout.split())
