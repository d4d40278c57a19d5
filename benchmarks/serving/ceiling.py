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
from typing import Any

from benchmarks.serving import proc
from benchmarks.serving.environment import ROOT, python_of
from benchmarks.serving.pictures import SIZES, jpeg
from benchmarks.serving.server import Variant, _environ, own
from benchmarks.serving.statistics import median

BATCHES = (1, 2, 4, 8, 12, 16, 24, 32)
_LARGE = {"1080": 0.5, "12mp": 0.5}  # seconds enough for what takes long


def measure(engine: str, cores: int, seconds: float) -> dict[str, Any]:
    """Measure alone, and with every core at work, which is what a loaded server has.

    Args:
        engine: A key of `benchmarks.serving.peers.model.ENGINES`.
        cores: How many processes at once.
        seconds: For each batch size and each picture, in each process.

    Returns:
        CPU milliseconds of decoding by picture and of inference by batch size (for one face), the
        best batch, and requests a second: cores ÷ (decode + forward at the best batch).
    """
    alone = _measure(engine, 1, seconds)[0]
    together = _measure(engine, cores, seconds)
    decode = {p: median([one["decode_ms"][p] for one in together]) for p in SIZES}
    forward = {str(b): median([one["forward_ms"][str(b)] for one in together]) for b in BATCHES}
    best = min(forward, key=lambda batch: forward[batch])
    return {
        "engine": engine,
        "cores": cores,
        "alone": alone,
        "decode_ms": decode,
        "forward_ms": forward,
        "best_batch": int(best),
        "requests_per_s": {p: 1e3 * cores / (decode[p] + forward[best]) for p in SIZES},
    }


def _measure(engine: str, processes: int, seconds: float) -> list[dict[str, Any]]:
    command = [python_of("ours"), "-m", "benchmarks.serving.ceiling", engine, str(seconds)]
    environ = _environ(Variant("ours", engine, 1), 0)
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
            process.stdout.readline()  # it is warm
        for process in started:  # all of them begin together
            process.stdin.write("go\n")
            process.stdin.flush()
        return [json.loads(process.communicate()[0]) for process in started]


def main() -> None:
    import numpy as np

    from benchmarks.serving.peers.model import open_model

    seconds, model = float(sys.argv[2]), open_model()
    pictures = {picture: jpeg(picture) for picture in SIZES}
    face = model.decode(pictures["256"])
    print("warm", flush=True)
    sys.stdin.readline()
    forward, decode = {}, {}
    for batch in BATCHES:
        faces = np.stack([face] * batch)
        forward[batch] = _cpu_ms(lambda: model.infer(faces), seconds) / batch  # noqa: B023
    for picture, data in pictures.items():
        enough = min(seconds, _LARGE.get(picture, seconds))
        decode[picture] = _cpu_ms(lambda: model.decode(data), enough)  # noqa: B023
    print(json.dumps({"forward_ms": forward, "decode_ms": decode}))


def _cpu_ms(work: Callable[[], object], seconds: float) -> float:
    """Return the CPU time of one call, in milliseconds."""
    for _ in range(3):
        work()
    calls, end, cpu = 0, time.monotonic() + seconds, time.process_time()
    while time.monotonic() < end:
        work()
        calls += 1
    return 1e3 * (time.process_time() - cpu) / calls


if __name__ == "__main__":
    main()
