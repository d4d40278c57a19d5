"""Exports a finished run as the checkpoint to ship: calibrated, scored and verified."""

import dataclasses
import datetime
import subprocess
from pathlib import Path
from typing import Any

import torch

from training.calibrate import fit_temperature
from training.dataset import Dataset, Split
from training.evaluate import predict, score
from training.machine import Machine
from training.model.checkpoint import Checkpoint, digest, load_checkpoint, save_checkpoint
from training.model.network import AttentionFER, count_multiply_adds, count_parameters
from training.model.prior import POWERS, named_prior
from training.priors import fit_temperatures, score_under, stated_prior

PROTOCOL = (
    "single pass, float32, no flip unless said; epoch and temperature chosen on the validation "
    "split, test split scored at export"
)


class ExportError(Exception):
    """The run was trained on other data, or the written file gives other outputs."""


def export(best: Checkpoint, out: Path, data: Dataset, machine: Machine) -> Checkpoint:
    """Write the checkpoint to ship from a run's best one, or from the average of several.

    Weights are stored as float16. The figures in the header are measured with the stored weights,
    so that an evaluation of the file gives the same.

    Args:
        best: The checkpoint; its network is changed.
        out: The file to write.
        data: The training data. The temperature is fitted on its validation split, and the final
            figures are of its test split.
        machine: Where to compute.

    Returns:
        The checkpoint that was read back from `out`.

    Raises:
        ExportError: `best` and the data have different emotions, or the file gives other outputs.
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
    manifest = dataclasses.replace(manifest, temperature=temperature)
    done = annotate(Checkpoint(network, manifest), data, machine)
    save_checkpoint(out, network, done.manifest, torch.float16)
    return _reread(out, network, data, machine)


def annotate(checkpoint: Checkpoint, data: Dataset, machine: Machine) -> Checkpoint:
    """Add the training labels' prior, a temperature for each prior, and the figures under each.

    Weights and temperature stay unchanged; nothing is chosen on the test split.

    Args:
        checkpoint: Its network is on the machine's device.
        data: The training data.
        machine: Where to compute.

    Returns:
        The same network with another manifest.
    """
    manifest, split = checkpoint.manifest, data.validation
    prior = stated_prior(data, manifest.provenance.get("recipe") or {})
    logits = predict(checkpoint.network, split.faces, manifest.input_spec, machine)
    temperatures = fit_temperatures(logits, split.targets, prior)
    manifest = dataclasses.replace(manifest, prior=prior, temperatures=temperatures)
    stated = Checkpoint(checkpoint.network, manifest)
    figures = measure(stated, data, machine) | {"cost": cost(stated)}
    return Checkpoint(stated.network, dataclasses.replace(manifest, metrics=figures))


def measure(
    checkpoint: Checkpoint, data: Dataset, machine: Machine, wild: Split | None = None
) -> dict[str, Any]:
    """Score a checkpoint on the validation and test splits, with and without flip averaging.

    If its manifest has the training prior, a single pass is also scored under each named prior.

    Args:
        checkpoint: Its network is on the machine's device.
        data: With the checkpoint's emotions.
        machine: Where to compute.
        wild: Faces from another source, with the checkpoint's emotions.

    Returns:
        For JSON: the protocol, scores by split and pass, and scores by prior and split. Splits
        without faces are left out.
    """
    manifest = checkpoint.manifest
    figures: dict[str, Any] = {"protocol": PROTOCOL}
    splits = {"validation": data.validation, "test": data.test}
    splits |= {"test_majority": data.test_majority} if data.test_majority else {}
    splits |= {"wild": wild} if wild else {}
    under: dict[str, dict[str, Any]] = {name: {} for name in POWERS if manifest.prior}
    for name, split in splits.items():
        if len(split) == 0:
            continue
        for suffix, flip in (("", False), ("_flip", True)):
            spec = manifest.input_spec
            logits = predict(checkpoint.network, split.faces, spec, machine, flip=flip)
            scores = score(logits, split.targets, manifest.temperature)
            figures[name + suffix] = dataclasses.asdict(scores)
            if manifest.prior and not flip:
                for prior, found in under.items():
                    shares = named_prior(manifest.prior, prior)
                    scored = score_under(logits, split, manifest, shares)
                    found[name] = dataclasses.asdict(scored)
    return figures | ({"priors": under} if under else {})


def cost(checkpoint: Checkpoint) -> dict[str, int]:
    """Return the number of a network's parameters and of its multiply-adds per face."""
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
    """Return the commit of the working tree; "unknown" outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _reread(out: Path, network: AttentionFER, data: Dataset, machine: Machine) -> Checkpoint:
    """Read the file back, and compare its outputs on validation faces with the network's."""
    checkpoint = load_checkpoint(out)
    checkpoint.network.to(machine.device)
    faces, spec = data.validation.faces[:256], checkpoint.manifest.input_spec
    expected = predict(network.eval(), faces, spec, machine)
    read = predict(checkpoint.network, faces, spec, machine)
    if not torch.equal(expected, read):
        worst = float((expected - read).abs().max())
        raise ExportError(f"{out}: logits differ by up to {worst:g} from the exported network's")
    return checkpoint
