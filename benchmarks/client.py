"""How many pictures a second the command `fer` gets answered, beside what the server can.

usage: python -m benchmarks.client [--pictures N] [--rounds N] [--concurrency N] [--detect HOW]

A folder of photographs, made of one public-domain portrait at varied crops and sizes, goes through
`fer --format csv`, the command's start included. In turns with it wrk sends the same pictures from
memory over as many connections: the server's limit, since wrk costs next to nothing. Client and
server share the machine, as a user's would; what of the cores the client took is printed.
"""

import argparse
import datetime
import os
import platform
import random
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from PIL import Image
from skimage.data import astronaut

START_S = 120
SECONDS = 10
"""How long wrk sends, in each round."""
WRK = """
local requests, n = {}, 0
function init()
  local headers = {["Content-Type"] = "application/octet-stream"}
  for path in io.lines(os.getenv("LIST")) do
    local file = assert(io.open(path, "rb"))
    requests[#requests + 1] = wrk.format("POST", os.getenv("ASKED"), headers, file:read("*a"))
    file:close()
  end
end
function request()
  n = n % #requests + 1
  return requests[n]
end
"""


@dataclass(frozen=True)
class Run:
    """One round of one client.

    Attributes:
        rate: Pictures answered a second.
        client_ms: CPU time that the client itself took for each, in milliseconds.
    """

    rate: float
    client_ms: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--detect", choices=("auto", "always", "never"), default="auto")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder, served() as url:
        files = make(Path(folder), options.pictures)
        mean_kb = statistics.mean(file.stat().st_size for file in files) / 1e3
        fer(url, files[:50], options)  # warms the server
        rounds = [
            (fer(url, files, options), wrk(url, files, options)) for _ in range(options.rounds)
        ]
    report(rounds, mean_kb, options)


def make(folder: Path, count: int) -> list[Path]:
    """Write JPEGs of 96 to 1024 pixels: the portrait, more or less of what is around its face."""
    chosen, portrait = random.Random(0), Image.fromarray(astronaut())
    for n in range(count):
        side = chosen.randint(170, 512)
        x = chosen.randint(max(0, 300 - side), min(160, 512 - side))
        y = chosen.randint(0, min(10, 512 - side))
        crop = portrait.crop((x, y, x + side, y + side))
        size = chosen.randint(96, 1024)
        file = folder / f"{n % 10}" / f"{n:05}.jpg"
        file.parent.mkdir(exist_ok=True)
        crop.resize((size, size * 3 // 4 if n % 2 else size)).save(file, quality=90)
    return sorted(folder.glob("*/*.jpg"))


def fer(url: str, files: list[Path], options: argparse.Namespace) -> Run:
    """Send the files with the command, as somebody would who has them in a folder."""
    command = [sys.executable, "-m", "service.client", "--url", url, "--format", "csv"]
    command += ["--concurrency", str(options.concurrency), "--detect", options.detect]
    began, cpu_s = time.monotonic(), children_s()
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=True)
    answered = {line.split(",")[0] for line in done.stdout.splitlines()[1:]}
    assert len(answered) == len(files), "some pictures have no answer"
    return Run(len(files) / (time.monotonic() - began), 1e3 * (children_s() - cpu_s) / len(files))


def wrk(url: str, files: list[Path], options: argparse.Namespace) -> Run:
    """Send the same files from memory, over and over."""
    with tempfile.TemporaryDirectory() as folder:
        names, script = Path(folder) / "list", Path(folder) / "wrk.lua"
        names.write_text("\n".join(map(str, files)))
        script.write_text(WRK)
        command = ["wrk", "-t1", f"-c{options.concurrency}", f"-d{SECONDS}s", "--timeout", "30s"]
        asked = {"LIST": str(names), "ASKED": f"/predict?detect={options.detect}"}
        cpu_s = children_s()
        done = subprocess.run(
            [*command, "-s", str(script), url],
            env=os.environ | asked, capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert "Non-2xx" not in done.stdout, done.stdout
    requests = re.search(r"(\d+) requests in ([\d.]+)s", done.stdout)
    assert requests, done.stdout
    count, seconds = int(requests[1]), float(requests[2])
    return Run(count / seconds, 1e3 * (children_s() - cpu_s) / count)


def children_s() -> float:
    """Return CPU seconds of the commands that ended; the server is still running."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextmanager
def served() -> Iterator[str]:
    """Run the shipped service on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = {"FER_HOST": "127.0.0.1", "FER_PORT": str(port), "FER_TIMEOUT_S": "60"}
    server = subprocess.Popen(
        [sys.executable, "-m", "service"], env=os.environ | environ, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(f"http://127.0.0.1:{port}", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def wait_for(url: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    sys.exit("the server does not start")


def report(rounds: list[tuple[Run, Run]], mean_kb: float, options: argparse.Namespace) -> None:
    print(
        f"{options.pictures} JPEGs of {mean_kb:.0f} kB, detect={options.detect}, "
        f"{options.concurrency} at a time; medians of {len(rounds)} rounds\n"
        f"{processor()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}, {datetime.date.today()}"
    )
    for name, runs in zip(("fer", "wrk"), zip(*rounds, strict=True), strict=True):
        rates = sorted(run.rate for run in runs)
        client_ms = statistics.median(run.client_ms for run in runs)
        print(
            f"{name}  {statistics.median(rates):7.1f} pictures/s "
            f"({rates[0]:.1f} to {rates[-1]:.1f}), {client_ms:.2f} ms of CPU in the client for each"
        )


def processor() -> str:
    """Return the processor's name as the kernel has it."""
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", path.read_text()) if path.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
