"""What the engine alone does at each size of batch, and what share of the device's limit that is.

usage: python -m benchmarks.engine [--device auto|cpu|cuda] [--seconds S] [--max-batch N]
                                   [--fer2013 FILE] [--checkpoint FILE]

Every engine that the device has, in alternating rounds, medians. On CUDA: eager and by graphs,
float32 and bfloat16, one batch at a time and two in flight. On a CPU: eager, and with the kernels
of `service.kernels` for each instruction set that it has; times are CPU time of the one thread that
computes. Face bytes come from the host and probabilities go back, as when serving.

A face counts twice its multiply-adds. Winograd's convolutions take fewer, and so go beyond the
limit. The limit is of the engine's own precision: the faster of a large matrix product and a large
convolution, before or after. One of the two alone is no limit: on an AMD CPU torch's float32
products ran at 98 GFLOP/s and its convolutions at 236, so that shares came out at 190 %. With
FER2013's file the accuracy on PublicTest is printed too.
"""

import argparse
import datetime
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.device import clock_of, limit, name_of
from service.config import SHIPPED
from service.engine.cuda.buckets import buckets
from service.engine.cuda.engine import CudaEngine
from service.engine.timing import largest
from service.engine.torch_engine import TorchEngine, find_device
from service.kernels import Kernels, files
from service.kernels import load as load_kernels
from service.server.malloc import tune_malloc
from training.dataset import load
from training.machine import Machine
from training.model.checkpoint import Checkpoint, load_checkpoint
from training.model.manifest import InputSpec
from training.model.network import count_multiply_adds

ROUNDS = 3
Faces = NDArray[np.uint8]
Infer = Callable[[Faces], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=0.5, help="a figure (%(default)s)")
    parser.add_argument("--max-batch", type=int, help="the largest (256 on CUDA, 32 on a CPU)")
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED["fer2013"])
    parser.add_argument("--fer2013", type=Path, help="fer2013.csv, for the accuracy")
    options = parser.parse_args()
    device = find_device(options.device)
    checkpoint = load_checkpoint(options.checkpoint)
    max_batch = options.max_batch or largest(str(device))
    torch.set_num_threads(1)
    tune_malloc()  # as the service has it, or page faults would be measured
    engines = contenders(checkpoint, device, max_batch)
    print(
        f"{name_of(Machine(device))}, torch {torch.__version__}, {checkpoint.manifest.name} "
        f"{checkpoint.manifest.version}, {datetime.date.today()}"
    )
    print("\n".join(table(engines, checkpoint, device, max_batch, options.seconds)))
    if options.fer2013 is not None:
        print("\n".join(accuracies(engines, options.fer2013, max_batch)))


@dataclass(frozen=True)
class Contender:
    """One way to infer.

    Attributes:
        infer: Takes uint8[n, h, w].
        dtype: What most of it computes in.
        at_once: Whether it answers the faces that it was given, not those before.
    """

    infer: Infer
    dtype: torch.dtype
    at_once: bool = True


def contenders(
    checkpoint: Checkpoint, device: torch.device, max_batch: int
) -> dict[str, Contender]:
    """Return every engine of a device by name."""
    if device.type == "cpu":
        found = {"eager": on_cpu(checkpoint, max_batch, None)}
        for path in reversed(files()):
            found[path.stem] = on_cpu(checkpoint, max_batch, load_kernels(path))
        return found
    eager = TorchEngine(checkpoint, str(device), max_batch)
    found = {"eager float32": Contender(eager.infer, torch.float32)}
    for precision in ("float32", "auto"):
        engine = CudaEngine(checkpoint, str(device), max_batch, precision=precision)
        name, dtype = f"graphs {engine.precision}", dtype_of(engine)
        found[name] = Contender(engine.infer, dtype)
        found[f"{name}, two in flight"] = Contender(in_flight(engine), dtype, at_once=False)
    return found


def on_cpu(checkpoint: Checkpoint, max_batch: int, kernels: Kernels | None) -> Contender:
    """Return the engine on one core, with these kernels or none."""
    with patch("service.engine.torch_engine.kernels", lambda: kernels):
        return Contender(TorchEngine(checkpoint, "cpu", max_batch, 1).infer, torch.float32)


def dtype_of(engine: TorchEngine) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, engine.precision)
    return dtype


def in_flight(engine: CudaEngine) -> Infer:
    """Return what begins a batch and then finishes the one before."""
    begun: list[Callable[[], object]] = []

    def infer(faces: Faces) -> object:
        begun.append(engine.begin(faces))
        return begun.pop(0)() if len(begun) > 1 else None

    return infer


def table(
    engines: dict[str, Contender],
    checkpoint: Checkpoint,
    device: torch.device,
    max_batch: int,
    seconds: float,
) -> list[str]:
    """Measure all at each size; return the lines of a table."""
    spec = checkpoint.manifest.input_spec
    operations = 2 * count_multiply_adds(checkpoint.network, spec)
    dtypes = list(dict.fromkeys(engine.dtype for engine in engines.values()))
    limits = [{dtype: limit(device, dtype, seconds) for dtype in dtypes}]
    rates = {
        size: side_by_side(engines, random_faces(size, spec), seconds, clock_of(device))
        for size in buckets(max_batch)
    }
    limits.append({dtype: limit(device, dtype, seconds) for dtype in dtypes})
    most = {dtype: max(found[dtype] for found in limits) for dtype in dtypes}
    said = ", ".join(f"{most[dtype] / 1e12:.3f} in {dtype}" for dtype in dtypes)
    lines = [
        f"limits, TFLOP/s: {said}; {operations / 1e6:.0f} MFLOP a face".replace("torch.", ""),
        "| faces/s (share of the limit) | " + " | ".join(engines) + " |",
        "|---" * (len(engines) + 1) + "|",
    ]
    for size, found in rates.items():
        cells = [
            f"{each:.0f} ({each * operations / most[engine.dtype]:.1%})"
            for each, engine in zip(found, engines.values(), strict=True)
        ]
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    return lines


def random_faces(count: int, spec: InputSpec) -> Faces:
    shape = count, spec.height, spec.width
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def side_by_side(
    engines: dict[str, Contender], faces: Faces, seconds: float, clock: Callable[[], float]
) -> list[float]:
    """Return each engine's faces a second: the median of rounds that alternate."""
    rounds: list[list[float]] = [[] for _ in engines]
    for number in range(ROUNDS + 1):
        for engine, rates in zip(engines.values(), rounds, strict=True):
            infer = partial(engine.infer, faces)
            found = len(faces) * per_second(infer, seconds / ROUNDS, clock)
            if number:  # the first one chooses kernels
                rates.append(found)
    return [statistics.median(rates) for rates in rounds]


def per_second(work: Callable[[], object], seconds: float, clock: Callable[[], float]) -> float:
    """Return how often a second `work` runs, over at least three times."""
    times, began = 0, clock()
    while times < 3 or clock() - began < seconds:
        work()
        times += 1
    return times / (clock() - began)


def accuracies(engines: dict[str, Contender], path: Path, max_batch: int) -> list[str]:
    """Return each engine's accuracy on PublicTest; of those that answer at once."""
    split = load(path).validation
    faces, labels = split.faces.numpy(), split.targets.argmax(dim=1).numpy()
    lines = []
    for name, engine in engines.items():
        if not engine.at_once:
            continue
        parts = [
            np.asarray(engine.infer(faces[start : start + max_batch])).argmax(axis=1)
            for start in range(0, len(faces), max_batch)
        ]
        lines.append(f"{name}: {np.mean(np.concatenate(parts) == labels):.4f} on PublicTest")
    return lines


if __name__ == "__main__":
    main()
