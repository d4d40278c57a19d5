"""How many faces a second a recipe trains on here, and what share of the device's peak that is.

usage: python -m benchmarks.training [--recipe NAME] [--seconds S] [--device cpu|cuda] [--threads N]

Steps run on random faces of the recipe's batch, augmentation and update included, in rounds that
alternate with the limit: the faster of a matrix product and a convolution in the same precision. A
face costs three forward passes (forward, gradient of inputs, gradient of weights), each of twice
the multiply-adds that `python -m training inspect` prints; what is normalised, pooled or sampled
is not counted, so the share is what the arithmetic that matters gets.
"""

import argparse
import datetime
import statistics
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.device import limit, name_of, rate
from training.config import RECIPES
from training.dataset import Dataset, Split
from training.machine import machine
from training.model.labels import FER2013_EMOTIONS, FERPLUS_EMOTIONS
from training.model.manifest import InputSpec
from training.model.network import count_multiply_adds
from training.run import Run

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="ferplus")
    parser.add_argument("--seconds", type=float, default=30.0, help="in all (%(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1, help="of a CPU (%(default)s)")
    options = parser.parse_args()
    with machine(options.device, options.threads) as here, tempfile.TemporaryDirectory() as folder:
        report(Run(data(4096), RECIPES[options.recipe], InputSpec(), Path(folder), here), options)


def report(run: Run, options: argparse.Namespace) -> None:
    """Measure in alternating rounds and print the medians."""
    each = options.seconds / ROUNDS / 2
    dtype = torch.bfloat16 if run.machine.bfloat16 else torch.float32
    operations = 6 * count_multiply_adds(run.network, run.spec)
    rate(run.step, 1.0, run.machine)  # compiles, and chooses kernels
    faces, peaks = [], []
    for _ in range(ROUNDS):
        faces.append(run.config.batch_size * rate(run.step, each, run.machine))
        peaks.append(limit(run.machine.device, dtype, each / 2))
    reached, peak = statistics.median(faces) * operations, statistics.median(peaks)
    print(
        f"{options.recipe} on {name_of(run.machine)}, {options.threads} thread(s), torch "
        f"{torch.__version__}, {'bfloat16' if run.machine.bfloat16 else 'float32'}, "
        f"{datetime.date.today()}\n"
        f"{statistics.median(faces):.0f} faces/s ({min(faces):.0f} to {max(faces):.0f}), "
        f"{reached / 1e9:.0f} GFLOP/s of {peak / 1e9:.0f} that this device reaches: "
        f"{reached / peak:.0%}"
    )


def data(count: int) -> Dataset:
    """Return random faces with both tasks."""
    faces = torch.randint(0, 256, (count, 48, 48), dtype=torch.uint8)

    def split(emotions: tuple[str, ...]) -> Split:
        return Split(faces, F.one_hot(torch.arange(count) % len(emotions), len(emotions)).float())

    part = split(FER2013_EMOTIONS)
    second = Dataset("fer2013", FER2013_EMOTIONS, part, part, part, "random")
    part = split(FERPLUS_EMOTIONS)
    return Dataset("ferplus", FERPLUS_EMOTIONS, part, part, part, "random", second=second)


if __name__ == "__main__":
    main()
