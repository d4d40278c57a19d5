"""From a finished run to the checkpoint that is shipped: calibrated, scored once, checked."""

import dataclasses
import datetime
import subprocess
from pathlib import Path
from typing import Any

import torch

from training.calibrate import fit_temperature
from training.dataset import Dataset
from training.evaluate import predict, score
from training.machine import Machine
from training.model.checkpoint import Checkpoint, digest, load_checkpoint, save_checkpoint
from training.model.network import AttentionFER, count_multiply_adds, count_parameters

PROTOCOL = (
    "single pass, float32, no flip unless said; epoch and temperature chosen on the validation "
    "split, test split scored at export"
)


class ExportError(Exception):
    """The run's checkpoint is not of this data, or the written file does not give it back."""


def export(best: Checkpoint, out: Path, data: Dataset, machine: Machine) -> Checkpoint:
    """Make the shipped checkpoint of a run's best one, or of the average of several.

    Weights are stored as float16; every figure in the header is measured on the weights as
    stored, so that whoever evaluates the file gets the same.

    Args:
        best: Which; its network is changed.
        out: Where to write.
        data: What it was trained on; its validation split gives the temperature, its test split
            the figures.
        machine: Where to compute.

    Returns:
        The checkpoint as read back from `out`.

    Raises:
        ExportError: `best` names other emotions than the data; or the file read back gives other
            outputs.
    """
    if best.manifest.emotions != data.emotions:
        raise ExportError(
            f"the run names {', '.join(best.manifest.emotions)}, but the data has "
            f"{', '.join(data.emotions)}; give the data, and the votes, that it was trained on"
        )
    network = _round_to_half(best.network)
    manifest = dataclasses.replace(
        best.manifest,
        version=f"{datetime.date.today().isoformat()}.{digest(network)}",
        provenance=dict(best.manifest.provenance)
        | {"code": _code_version(), "torch": torch.__version__},
    )
    network.to(machine.device)
    validation = predict(network, data.validation.faces, manifest.input_spec, machine)
    temperature = fit_temperature(validation, data.validation.targets)
    calibrated = Checkpoint(network, dataclasses.replace(manifest, temperature=temperature))
    figures = measure(calibrated, data, machine) | {"cost": cost(calibrated)}
    manifest = dataclasses.replace(calibrated.manifest, metrics=figures)
    save_checkpoint(out, network, manifest, torch.float16)
    return _reread(out, network, data, machine)


def measure(checkpoint: Checkpoint, data: Dataset, machine: Machine) -> dict[str, Any]:
    """Score a checkpoint on the validation and test splits, with and without flip averaging.

    Args:
        checkpoint: Its network on the machine's device.
        data: Of the checkpoint's emotions.
        machine: Where to compute.

    Returns:
        For JSON: the protocol, and scores by split and pass.
    """
    spec, temperature = checkpoint.manifest.input_spec, checkpoint.manifest.temperature
    figures: dict[str, Any] = {"protocol": PROTOCOL}
    splits = {"validation": data.validation, "test": data.test}
    if data.test_majority is not None:
        splits["test_majority"] = data.test_majority
    for name, split in splits.items():
        for suffix, flip in (("", False), ("_flip", True)):
            logits = predict(checkpoint.network, split.faces, spec, machine, flip=flip)
            figures[name + suffix] = dataclasses.asdict(score(logits, split.targets, temperature))
    return figures


def cost(checkpoint: Checkpoint) -> dict[str, int]:
    """Return the parameters of a checkpoint's network and its multiply-adds a face."""
    network = checkpoint.network
    return {
        "parameters": count_parameters(network),
        "multiply_adds": count_multiply_adds(network, checkpoint.manifest.input_spec),
    }


def _round_to_half(network: AttentionFER) -> AttentionFER:
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())
    return network


def _code_version() -> str:
    """Return the commit that is checked out, or "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _reread(out: Path, network: AttentionFER, data: Dataset, machine: Machine) -> Checkpoint:
    """Read the file back and compare it with what was meant, on real faces."""
    checkpoint = load_checkpoint(out)
    checkpoint.network.to(machine.device)
    faces, spec = data.validation.faces[:256], checkpoint.manifest.input_spec
    meant = predict(network.eval(), faces, spec, machine)
    read = predict(checkpoint.network, faces, spec, machine)
    if not torch.equal(meant, read):
        worst = float((meant - read).abs().max())
        raise ExportError(f"{out}: logits differ by up to {worst:g} from the exported network's")
    return checkpoint
