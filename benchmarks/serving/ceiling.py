"""The most that this machine could serve: decoding and inference alone, no server around them.

`python -m benchmarks.serving.ceiling ENGINE SECONDS` measures one process and prints JSON; the
benchmark runs one by itself, and as many at once as there are cores.
"""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.serving import proc
from benchmarks.serving.environment import ROOT, python_of
from benchmarks.serving.pictures import MAIN_CROP, PICTURES, jpeg
from benchmarks.serving.server import Variant, environ_of, own
from benchmarks.serving.statistics import median

if TYPE_CHECKING:
    from benchmarks.serving.peers.model import Faces, Model

BATCHES = (1, 2, 4, 8, 12, 16, 24, 32, 64, 128, 256)
Run = Callable[[str, int, float], list[dict[str, Any]]]
_LARGE = {"1080": 0.5, "12mp": 0.5, "crowd": 0.5}  # seconds enough for what takes long


def run_processes(engine: str, processes: int, seconds: float) -> list[dict[str, Any]]:
    """Run this module in so many processes at once; returns what each of them printed.

    Args:
        engine: A key of `benchmarks.serving.peers.model.ENGINES`.
        processes: How many; they begin together, once all are warm.
        seconds: For each batch size and each picture.
    """
    command = [python_of("ours"), "-m", "benchmarks.serving.ceiling", engine, str(seconds)]
    environ = environ_of(Variant("ours", engine, 1), 0, crops=False)
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                own(
                    subprocess.Popen(
                        command,
                        cwd=ROOT,
                        env=environ,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                        preexec_fn=proc.die_with_parent,
                    )
                )
            )
            for _ in range(processes)
        ]
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()  # it is warm
        for process in started:  # all of them begin together
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        return [json.loads(process.communicate()[0]) for process in started]


def measure(engine: str, cores: int, seconds: float, run: Run = run_processes) -> dict[str, Any]:
    """Measure alone, and with every core at work, which is what a loaded server has.

    On CUDA the network is not the cores' work: one process measures it, by the clock, with two
    batches in flight where the engine can, and the cores have decoding alone.

    Args:
        engine: A key of `benchmarks.serving.peers.model.ENGINES`.
        cores: How many processes at once.
        seconds: For each batch size and each picture, in each process.
        run: As `run_processes`.

    Returns:
        CPU milliseconds of decoding and finding faces by picture and of inference by batch size
        (for one face), the best batch, and requests a second: cores ÷ (decode + forward of all
        faces at the best batch); on CUDA whichever is less, what the cores decode or what the
        device computes.
    """
    alone = run(engine, 1, seconds)[0]
    on_cuda = alone["device"] != "cpu"
    together = run("nothing" if on_cuda else engine, cores, seconds)
    decode = {p: median([one["decode_ms"][p] for one in together]) for p in PICTURES}
    forwards = [alone] if on_cuda else together
    forward = {b: median([one["forward_ms"][b] for one in forwards]) for b in alone["forward_ms"]}
    best = min(forward, key=lambda batch: forward[batch])

    def most(picture: str) -> float:
        computing = max(1, PICTURES[picture].faces) * forward[best]
        if on_cuda:
            return min(1e3 * cores / decode[picture], 1e3 / computing)
        return 1e3 * cores / (decode[picture] + computing)

    return {
        "engine": engine,
        "cores": cores,
        "alone": alone,
        "decode_ms": decode,
        "forward_ms": forward,
        "best_batch": int(best),
        "requests_per_s": {p: most(p) for p in PICTURES},
    }


def main() -> None:
    import numpy as np

    from benchmarks.serving.peers.model import DEVICE, MAX_BATCH, open_model
    from service.pictures.search import NO_SEARCH, FaceSearch

    seconds, model = float(sys.argv[2]), open_model()
    pictures = {picture: jpeg(picture) for picture in PICTURES}
    (face,) = model.find(pictures[MAIN_CROP], NO_SEARCH).faces
    print("warm", flush=True)
    sys.stdin.readline()
    forward, decode = {}, {}
    clock = time.process_time if DEVICE.type == "cpu" else time.perf_counter
    pipelined = in_flight(model)
    for batch in (b for b in BATCHES if b <= MAX_BATCH):
        faces = np.stack([face] * batch)
        # Alone, one face waits for its answer; the others are for the most that is possible.
        infer = model.infer if batch == 1 else pipelined
        forward[batch] = _ms(lambda: infer(faces), seconds, clock) / batch  # noqa: B023
    for picture, data in pictures.items():
        enough = min(seconds, _LARGE.get(picture, seconds))
        search = NO_SEARCH if PICTURES[picture].is_crop else FaceSearch()
        find = partial(model.find, data, search)
        decode[picture] = _ms(find, enough, time.process_time)
    print(json.dumps({"device": DEVICE.type, "forward_ms": forward, "decode_ms": decode}))


def in_flight(model: "Model") -> "Callable[[Faces], object]":
    """Return what begins a batch and finishes the one before, where the engine can."""
    if (begin := model.begin) is None:
        return model.infer
    begun: list[Callable[[], object]] = []

    def infer(faces: "Faces") -> None:
        begun.append(begin(faces))
        if len(begun) > 1:
            begun.pop(0)()

    return infer


def _ms(work: Callable[[], object], seconds: float, clock: Callable[[], float]) -> float:
    """Return what one call takes of a clock, in milliseconds."""
    for _ in range(3):
        work()
    calls, end, began = 0, time.monotonic() + seconds, clock()
    while time.monotonic() < end:
        work()
        calls += 1
    return 1e3 * (clock() - began) / calls


if __name__ == "__main__":
    main()
