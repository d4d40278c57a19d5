"""Writes results to a folder: figures as JSON, and pictures.

Only this module uses both the measuring modules and the drawing one.
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
    """Measure a checkpoint on the test faces, and write the results.

    `results.json` has all of them; `confusion.png`, `reliability.png`, `robustness.png`, and with
    FER+ `agreement.png`, show parts of it. They are of a single pass, unless the name says flip.

    Args:
        checkpoint: Its network is on the machine's device.
        data: With the checkpoint's emotions.
        folder: Created if needed.
        machine: Where to compute.
        wild: Faces from another source; adds `confusion-wild.png`.

    Raises:
        OSError: The folder cannot be written.
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
    """Write the results of an ablation.

    `ablation.json` has all runs and their common recipe. `geometry.png` shows the accuracy on moved
    faces, as means over the seeds, for the rows that differ only by the spatial transformer.

    Args:
        results: From `training.ablation.ablate`.
        config: The recipe; the network's switches and the seed differ between runs.
        folder: Created if needed.

    Returns:
        The names of the files.

    Raises:
        OSError: The folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recipe = dataclasses.asdict(config)
    text = json.dumps({"recipe": recipe, "rows": results}, indent=1)
    (folder / "ablation.json").write_text(text + "\n")
    curves = mean_geometry(results)
    compared = {name: curves[name] for pair in STN_PAIRS for name in pair}
    draw_robustness(compared, folder / "geometry.png")
    return ["ablation.json", "geometry.png"]
