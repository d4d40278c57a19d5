"""Two checkouts of this project beside each other: what a change costs or saves.

usage: python -m benchmarks.revisions BEFORE AFTER [--rounds N] [--seconds S] [--workers N]

Each checkout is a folder that has been set up (`make setup`). Both serve with the checkpoint that
they ship, one at a time; in every round each is loaded by wrk in turn, so that a machine that slows
down slows both. Medians of the rounds, and the median of the rounds' ratios.
"""

import argparse
import contextlib
import datetime
import http.client
import os
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.device import name_of
from benchmarks.serving.load import SCRIPT, find_wrk, parse, threads_for
from benchmarks.serving.pictures import Body, body
from training.machine import Machine

CONNECTIONS = (1, 8, 64)
_START_S = 120


@dataclass(frozen=True)
class Request:
    """What is asked over and over.

    Attributes:
        title: In the table.
        path: With its query.
        body: What is sent.
    """

    title: str
    path: str
    body: Body


def requests() -> list[Request]:
    """Return what users send: a photograph with the defaults first, then a crop."""
    return [
        Request("photograph, 1024 x 768, form", "/predict", body("photo", form=True)),
        Request("crop, 256 px, form", "/predict?detect=never", body("256", form=True)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rounds", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=4, help="a load (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="(%(default)s)")
    options = parser.parse_args()
    if find_wrk() is None:
        parser.error("wrk is not installed; it is Debian's package of that name")
    checkouts = {"before": options.before, "after": options.after}
    print(f"{name_of(Machine(torch.device('cpu')))}, {datetime.date.today()}, requests/s")
    for name, folder in checkouts.items():
        print(f"{name}: {revision(folder)}")
    print("| request | connections | before | after | ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for request in requests():
            kept = request.body.keep(Path(folder))
            for connections in CONNECTIONS:
                rates: dict[str, list[float]] = {name: [] for name in checkouts}
                for _ in range(options.rounds):
                    for name, checkout in checkouts.items():
                        with serving(checkout, options.workers) as port:
                            load(port, request, kept, connections, 1)
                            rate = load(port, request, kept, connections, options.seconds)
                        rates[name].append(rate)
                print(f"| {request.title} | {connections} | {row(**rates)} |", flush=True)


def row(before: list[float], after: list[float]) -> str:
    """Return the cells of a line: medians, and the median of the rounds' ratios."""
    ratio = statistics.median(new / old for old, new in zip(before, after, strict=True))
    return f"{statistics.median(before):.1f} | {statistics.median(after):.1f} | {ratio:.2f}"


def revision(folder: Path) -> str:
    """Return the commit that a folder has checked out, and its first line."""
    command = ["git", "-C", str(folder), "log", "-1", "--format=%h %s"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@contextlib.contextmanager
def serving(folder: Path, workers: int) -> Iterator[int]:
    """Run the service of a checkout; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    environ = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    settings = {"FER_HOST": "127.0.0.1", "FER_PORT": str(port), "FER_WORKERS": str(workers)}
    process = subprocess.Popen(
        [folder.resolve() / ".venv/bin/python", "-m", "service"],
        cwd=folder,
        env=environ | settings | {"FER_DEVICE": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_ready(port)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def wait_until_ready(port: int) -> None:
    """Wait until the service takes traffic.

    Raises:
        TimeoutError: It does not within two minutes.
    """
    give_up = time.monotonic() + _START_S
    while time.monotonic() < give_up:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing is ready on port {port}")


def load(port: int, request: Request, kept: Path, connections: int, seconds: float) -> float:
    """Return the requests/s that were answered well."""
    command = [
        *(find_wrk() or "wrk", "--threads", str(threads_for(connections))),
        *("--connections", str(connections), "--duration", f"{max(1, round(seconds))}s"),
        *("--timeout", "30s", "--latency", "--script", str(SCRIPT)),
        f"http://127.0.0.1:{port}{request.path}",
    ]
    environ = os.environ | {"BODY": str(kept), "CONTENT_TYPE": request.body.kind}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    result = parse(done.stdout)
    return (result["requests"] - result["refused"]) / result["seconds"]


if __name__ == "__main__":
    main()
