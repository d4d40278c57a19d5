"""The contract between training and service: one safetensors file that says all about itself.

Weights are tensors; everything else is JSON in the file's header. Loading executes nothing, and
whatever is not understood is refused by name.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from training.model.manifest import CheckpointError, InputSpec, Manifest, NetworkConfig
from training.model.network import AttentionFER

FORMAT = 1
_KEY = "attention_fer"

_T = TypeVar("_T")


@dataclass(frozen=True)
class Checkpoint:
    """A network with its weights, in evaluation mode on the CPU, float32, and its manifest."""

    network: AttentionFER
    manifest: Manifest


def digest(network: AttentionFER) -> str:
    """Return what tells this network's weights from all others': 8 hexadecimal digits of sha256."""
    sha256 = hashlib.sha256()
    for tensor in network.state_dict().values():
        sha256.update(tensor.cpu().numpy().tobytes())
    return sha256.hexdigest()[:8]


def save_checkpoint(
    path: Path, network: AttentionFER, manifest: Manifest, dtype: torch.dtype
) -> None:
    """Write a checkpoint; the file appears whole or not at all.

    Args:
        path: Where to; replaced if it is there.
        network: Whose weights and running statistics to keep.
        manifest: What to say about them.
        dtype: float16 or float32, how floating-point tensors are stored.

    Raises:
        ValueError: The manifest describes another network, or the dtype is neither.
    """
    if network.config != manifest.network:
        raise ValueError("manifest and network have different configurations")
    if dtype not in (torch.float16, torch.float32):
        raise ValueError(f"dtype is {dtype}, expected float16 or float32")
    tensors = {
        name: tensor.detach().to("cpu", dtype).contiguous()
        for name, tensor in _weights(network).items()
    }
    header = {"format": FORMAT} | asdict(manifest)
    part = path.with_name(path.name + ".part")
    part.write_bytes(save(tensors, {_KEY: json.dumps(header)}))
    part.replace(path)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and rebuild its network, without running anything from the file.

    Args:
        path: A file that `save_checkpoint` wrote.

    Returns:
        The network with float32 weights, on the CPU, in evaluation mode; and the manifest.

    Raises:
        CheckpointError: The file is missing, truncated, of another format version, or its
            header, tensors or shapes are not what this code understands.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_KEY)
            manifest = _read_manifest(header)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file; copy it again") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    network = AttentionFER(manifest.network)
    _fill(network, tensors, path)
    return Checkpoint(network.eval().requires_grad_(False), manifest)


def _weights(network: AttentionFER) -> dict[str, Tensor]:
    # Batch counters mean nothing without momentum=None, which no layer here uses.
    state = network.state_dict()
    return {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}


def _fill(network: AttentionFER, tensors: Mapping[str, Tensor], path: Path) -> None:
    expected = _weights(network)
    if missing := sorted(expected.keys() - tensors.keys()):
        raise CheckpointError(f"{path}: tensor {missing[0]} is missing ({len(missing)} in all)")
    if extra := sorted(tensors.keys() - expected.keys()):
        raise CheckpointError(
            f"{path}: tensor {extra[0]} is not of this network ({len(extra)} such)"
        )
    for name, target in expected.items():
        tensor = tensors[name]
        if tensor.shape != target.shape:
            raise CheckpointError(
                f"{path}: tensor {name} has shape {list(tensor.shape)}, "
                f"expected {list(target.shape)}"
            )
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: tensor {name} is not all finite numbers")
        target.copy_(tensor)


def _read_manifest(header: str | None) -> Manifest:
    if header is None:
        raise ValueError("not an attention-fer checkpoint: its header has no manifest")
    data = json.loads(header)
    if not isinstance(data, dict):
        raise ValueError("manifest is not an object")
    if data.pop("format", None) != FORMAT:
        raise ValueError(f"not of format version {FORMAT}, the one that this release reads")
    for name, kind in (("network", NetworkConfig), ("input_spec", InputSpec)):
        data[name] = _build(kind, data.get(name), name)
    return _build(Manifest, data, "manifest")


def _build(kind: type[_T], data: object, what: str) -> _T:
    """Make a dataclass from a JSON object that has exactly its fields, each of its type."""
    if not isinstance(data, dict):
        raise ValueError(f"{what} is missing or not an object")
    hints = get_type_hints(kind)
    if wrong := sorted(hints.keys() ^ data.keys()):
        raise ValueError(
            f"{what}: field {wrong[0]} is {'unknown' if wrong[0] in data else 'missing'}"
        )
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    for name, value in values.items():
        if not _conforms(value, hints[name]):
            raise ValueError(f"{what}: {name} is {str(value)[:40]!r}, which is of the wrong type")
    return kind(**values)


def _conforms(value: object, hint: Any) -> bool:
    """Tell whether a value is of a field's type; a bool is no number, and a number no bool."""
    arguments = get_args(hint)
    match get_origin(hint):
        case origin if origin is Literal:
            return value in arguments
        case origin if origin is tuple:
            return isinstance(value, tuple) and all(_conforms(v, arguments[0]) for v in value)
        case origin if origin is Mapping:
            return isinstance(value, dict)
    return type(value) in (int, float) if hint is float else type(value) is hint
