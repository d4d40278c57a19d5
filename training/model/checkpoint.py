"""The contract between training and service: one self-describing safetensors file.

Weights are tensors; everything else is JSON in the file's header. Loading executes nothing. What
this code does not understand is refused by name.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from training.model.manifest import CheckpointError, InputSpec, Manifest, NetworkConfig, shown
from training.model.manifest_json import parse
from training.model.network import AttentionFER

FORMAT = 1
_KEY = "attention_fer"
_COUNTER = "num_batches_tracked"
_DTYPES = ("F16", "F32")
"""The dtypes of stored tensors, as the format names them."""
_BLOCK_TENSORS = 10
"""The fewest tensors of a block: two convolutions with batch norm."""
_MAX_HEADER_BYTES = 1 << 20
"""The deepest network of a valid manifest needs half of that."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Checkpoint:
    """A network with its weights, in evaluation mode on the CPU, float32, and its manifest."""

    network: AttentionFER
    manifest: Manifest


def digest(network: AttentionFER) -> str:
    """Return a digest of a network's weights: 8 hexadecimal digits of SHA-256."""
    sha256 = hashlib.sha256()
    for tensor in network.state_dict().values():
        sha256.update(tensor.cpu().numpy().tobytes())
    return sha256.hexdigest()[:8]


def save_checkpoint(
    path: Path, network: AttentionFER, manifest: Manifest, dtype: torch.dtype
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: The file; replaced if it exists.
        network: Its weights and running statistics are stored.
        manifest: Their description.
        dtype: Of stored floating-point tensors, float16 or float32.

    Raises:
        ValueError: The manifest describes another network, or the dtype is another one.
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
    """Read a checkpoint and rebuild its network, without executing anything from the file.

    Args:
        path: A file written by `save_checkpoint`.

    Returns:
        The network with float32 weights, on the CPU, in evaluation mode; and the manifest.

    Raises:
        CheckpointError: The file is missing, truncated or of another format version, or its header,
            tensors or shapes are invalid.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        _check_header_length(path)
        with safe_open(path, framework="pt") as file:
            manifest = _read_manifest((file.metadata() or {}).get(_KEY))
            network = _outline(manifest.network, file)
            network.load_state_dict(_read_tensors(network, file), assign=True)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file; copy it again") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Checkpoint(network.eval().requires_grad_(False), manifest)


def _check_header_length(path: Path) -> None:
    """Refuse a header longer than any that `save_checkpoint` writes, before it is parsed."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if _MAX_HEADER_BYTES < length <= path.stat().st_size:
        raise ValueError(f"its header has {length} bytes, expected at most {_MAX_HEADER_BYTES}")


def _outline(config: NetworkConfig, file: Any) -> AttentionFER:
    """Build a network on the meta device, and compare its tensors with a file's."""
    names, blocks = set(file.keys()), sum(config.depths)
    if len(names) < _BLOCK_TENSORS * blocks:  # building costs time even without memory
        raise ValueError(f"it has {len(names)} tensors, too few for a network of {blocks} blocks")
    with torch.device("meta"):
        network = AttentionFER(config)
    expected = _weights(network)
    if missing := sorted(expected.keys() - names):
        raise ValueError(f"tensor {missing[0]} is missing ({len(missing)} in all)")
    if extra := sorted(names - expected.keys()):
        raise ValueError(f"tensor {shown(extra[0])} is not of this network ({len(extra)} such)")
    for name, target in expected.items():
        _compare(name, file.get_slice(name), target)
    return network


def _compare(name: str, found: Any, target: Tensor) -> None:
    """Check shape and dtype of a file's tensor before it is read."""
    shape, dtype = list(found.get_shape()), found.get_dtype()
    if shape != list(target.shape):
        raise ValueError(f"tensor {name} has shape {shape}, expected {list(target.shape)}")
    if dtype not in _DTYPES:
        raise ValueError(f"tensor {name} is of dtype {dtype}, expected {' or '.join(_DTYPES)}")


def _read_tensors(network: AttentionFER, file: Any) -> dict[str, Tensor]:
    """Return the state of a network, as copies of the file's tensors."""
    state = {}
    for name, target in network.state_dict().items():
        if name.endswith(_COUNTER):
            state[name] = torch.zeros(target.shape, dtype=target.dtype)
            continue
        state[name] = file.get_tensor(name).to(torch.float32, copy=True)
        if not torch.isfinite(state[name]).all():
            raise ValueError(f"tensor {name} is not all finite numbers")
    return state


def _weights(network: AttentionFER) -> dict[str, Tensor]:
    # Batch counters have no effect without momentum=None, which no layer here uses.
    state = network.state_dict()
    return {name: tensor for name, tensor in state.items() if not name.endswith(_COUNTER)}


def _read_manifest(header: str | None) -> Manifest:
    if header is None:
        raise ValueError("not an attention-fer checkpoint: its header has no manifest")
    data = parse(header)
    if not isinstance(data, dict):
        raise ValueError("manifest is not an object")
    version = data.pop("format", None)
    if type(version) is not int or version != FORMAT:
        raise ValueError(f"not of format version {FORMAT}, the one that this release reads")
    data.setdefault("prior", None)  # older checkpoints do not state it
    data.setdefault("temperatures", {})
    for name, kind in (("network", NetworkConfig), ("input_spec", InputSpec)):
        data[name] = _build(kind, data.get(name), name)
    return _build(Manifest, data, "manifest")


def _build(kind: type[_T], data: object, what: str) -> _T:
    """Create a dataclass from a JSON object, which must have exactly its fields and types."""
    if not isinstance(data, dict):
        raise ValueError(f"{what} is missing or not an object")
    hints = get_type_hints(kind)
    if wrong := sorted(hints.keys() ^ data.keys()):
        raise ValueError(
            f"{what}: field {shown(wrong[0])} is {'unknown' if wrong[0] in data else 'missing'}"
        )
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    for name, value in values.items():
        if not _conforms(value, hints[name]):
            raise ValueError(f"{what}: {name} is {shown(value)}, which is of the wrong type")
    return kind(**values)


def _conforms(value: object, hint: Any) -> bool:
    """Return whether a value has a field's type; bool and numbers are distinct."""
    arguments = get_args(hint)
    match get_origin(hint):
        case origin if origin is Literal:
            return value in arguments
        case origin if origin is tuple:
            return isinstance(value, tuple) and all(_conforms(v, arguments[0]) for v in value)
        case origin if origin is Mapping:
            return isinstance(value, dict) and (
                arguments[1] is Any or all(_conforms(v, arguments[1]) for v in value.values())
            )
        case origin if origin is UnionType:
            return any(_conforms(value, each) for each in arguments)
    return type(value) in (int, float) if hint is float else type(value) is hint
