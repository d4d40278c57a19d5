"""The closed loop: wrk holds so many connections, each asks again as soon as it is answered."""

import json
import os
import shutil
import subprocess
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving import proc
from benchmarks.serving.pictures import Body
from benchmarks.serving.server import Server, own

SCRIPT = Path(__file__).with_name("wrk.lua")
_TIMEOUT_S = 30  # wrk gives up on an answer then, and counts it
_DRAINED_S = 60  # requests whose clients have left go on in most servers


class LoadError(Exception):
    """wrk is not there, or did not say what it measured."""


@dataclass(frozen=True)
class Load:
    """What one run of wrk measured.

    Attributes:
        requests_per_s: Answered well, a second.
        cpu_ms: CPU time of all the server's processes for one answer, in milliseconds.
        errors: Answers other than 2xx, timeouts and broken connections.
        generator_cores: Cores that wrk itself kept busy: they were not the server's.
        other_cores: Cores that neither had: whatever else ran on the machine.
        stolen_cores: Cores that the host took away meanwhile.
        pss_mb: Memory of the server towards the end of the run; None where it was not asked for.
    """

    seconds: float
    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    cpu_ms: float
    errors: int
    generator_cores: float
    other_cores: float
    stolen_cores: float
    pss_mb: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON keeps it."""
        return asdict(self)


def find_wrk() -> str | None:
    return shutil.which("wrk")


def threads_for(connections: int) -> int:
    """Return how many threads wrk has: one of two cores, four of sixteen."""
    return max(1, min(connections, len(os.sched_getaffinity(0)) // 4))


def parse(output: str) -> dict[str, float]:
    """Read the line that wrk.lua prints.

    Raises:
        LoadError: There is none.
    """
    for line in output.splitlines():
        if line.startswith("RESULT "):
            return json.loads(line.removeprefix("RESULT "))
    raise LoadError(f"wrk said: {output.strip()[-400:]}")


def closed_loop(
    server: Server, body: Body, connections: int, seconds: float, *, memory: bool = False
) -> Load:
    """Load a server and watch what it costs.

    Args:
        server: Ready.
        body: What to send over and over.
        connections: Held open, each with one request under way.
        seconds: For so long.
        memory: Whether to read the server's memory shortly before the end.
    """
    environ = os.environ | {"BODY": str(body.keep(server.log.parent)), "CONTENT_TYPE": body.kind}
    command = [
        find_wrk() or "wrk",
        *("--threads", str(threads_for(connections)), "--connections", str(connections)),
        *("--duration", f"{max(1, round(seconds))}s", "--timeout", f"{_TIMEOUT_S}s"),
        *("--latency", "--script", str(SCRIPT), server.url(body)),
    ]
    server.ask(body, _DRAINED_S)  # answered when what the load before left is done
    seen: list[float] = []
    cpu, (busy, stolen), began = server.cpu_s(), proc.machine_cpu_s(), time.monotonic()
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, text=True, preexec_fn=proc.die_with_parent
    )
    with own(process):
        # Near the end: reading it walks the pages of the server, which takes its time.
        timer = threading.Timer(0.8 * seconds, lambda: seen.append(server.pss_mb()))
        if memory:
            timer.start()
        generator_s = _children_cpu_s()
        output, _ = process.communicate()
        timer.cancel()
        generator_s = _children_cpu_s() - generator_s
    if memory:
        timer.join()
    took = time.monotonic() - began
    cpu = server.cpu_s() - cpu
    busy_after, stolen_after = proc.machine_cpu_s()
    result = parse(output)
    errors = int(result["refused"] + result["timeouts"] + result["broken"])
    well = max(0, int(result["requests"] - result["refused"]))
    return Load(
        seconds=result["seconds"],
        requests=well,
        requests_per_s=well / result["seconds"],
        p50_ms=result["p50_ms"],
        p99_ms=result["p99_ms"],
        p999_ms=result["p999_ms"],
        max_ms=result["max_ms"],
        cpu_ms=1e3 * cpu / max(1, well),
        errors=errors,
        generator_cores=generator_s / took,
        other_cores=max(0.0, (busy_after - busy - cpu - generator_s) / took),
        stolen_cores=(stolen_after - stolen) / took,
        pss_mb=seen[0] if seen else None,
    )


def _children_cpu_s() -> float:
    """Return the CPU time of children that have ended: wrk, as none of the server's does here."""
    spent = os.times()
    return spent.children_user + spent.children_system
