"""Results in a folder: figures as JSON for programs, pictures for people.

The one place where figures and pictures meet; neither knows the other.
"""

import dataclasses
import json
from pathlib import Path

from training.ablation import Results
from training.agreement import agreement
from training.config import TrainConfig
from training.dataset import Dataset, Split
from training.evaluate import predict, reliability, score
from training.export import cost, measure
from training.machine import Machine
from training.model.checkpoint import Checkpoint
from training.report import draw_agreement, draw_confusion, draw_reliability, draw_robustness
from training.robustness import measure_curves
from training.significance import STN_PAIRS, mean_geometry


def write_results(
    checkpoint: Checkpoint,
    data: Dataset,
    folder: Path,
    machine: Machine,
    wild: Split | None = None,
) -> None:
    """Measure a checkpoint on the test faces, single pass unless said, and write what is found.

    `results.json` has everything; `confusion.png`, `reliability.png`, `robustness.png`, and of
    FER+ `agreement.png` show parts of it.

    Args:
        checkpoint: Its network on the machine's device.
        data: Of the checkpoint's emotions.
        folder: Where to; made if it is not there.
        machine: Where to compute.
        wild: Faces from elsewhere, a further split: `confusion-wild.png`.

    Raises:
        OSError: Nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest, test = checkpoint.manifest, data.test
    logits = predict(checkpoint.network, test.faces, manifest.input_spec, machine)
    scaled = logits / manifest.temperature
    before, after = (reliability(given, test.labels) for given in (logits, scaled))
    curves = measure_curves(checkpoint, test, machine)
    results = measure(checkpoint, data, machine, wild) | {
        "checkpoint": {"name": manifest.name, "version": manifest.version},
        "emotions": manifest.emotions,
        "cost": cost(checkpoint),
        "temperature": manifest.temperature,
        "reliability": {
            "before_scaling": dataclasses.asdict(before),
            "after_scaling": dataclasses.asdict(after),
        },
        "robustness": curves,
    }
    draw_confusion(score(scaled, test.targets), manifest.emotions, folder / "confusion.png")
    if wild:
        seen = predict(checkpoint.network, wild.faces, manifest.input_spec, machine)
        found = score(seen / manifest.temperature, wild.targets)
        draw_confusion(found, manifest.emotions, folder / "confusion-wild.png")
    draw_reliability(before, after, folder / "reliability.png")
    draw_robustness({manifest.name: curves}, folder / "robustness.png")
    if data.test_votes is not None:
        agreed = agreement(scaled, data.test_votes.targets)
        results["agreement"] = dataclasses.asdict(agreed)
        draw_agreement(agreed, folder / "agreement.png")
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")


def write_ablation(results: Results, config: TrainConfig, folder: Path) -> list[str]:
    """Write what the runs of the paper's table gave.

    `ablation.json` has every run, and the recipe that all share; `geometry.png` shows accuracy
    on moved faces, means over the seeds, of the rows that differ by the spatial transformer alone.

    Args:
        results: From `training.ablation.ablate`.
        config: The recipe; its network's switches and its seed are each run's own.
        folder: Where to; made if it is not there.

    Returns:
        The names of the files.

    Raises:
        OSError: Nothing can be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recipe = dataclasses.asdict(config)
    text = json.dumps({"recipe": recipe, "rows": results}, indent=1)
    (folder / "ablation.json").write_text(text + "\n")
    curves = mean_geometry(results)
    compared = {name: curves[name] for pair in STN_PAIRS for name in pair}
    draw_robustness(compared, folder / "geometry.png")
    return ["ablation.json", "geometry.png"]
