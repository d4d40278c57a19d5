"""`python -m benchmarks.serving`: the whole comparison, or part of it, in one command."""

import argparse
import os
import signal
import sys
from pathlib import Path

from benchmarks.serving import environment
from benchmarks.serving.pictures import PICTURES

ONLY = ("throughput", "overload", "behaviour", "floor", "ceiling")


def main() -> None:
    options = parse_arguments()
    os.environ["DEVICE"] = options.device  # what `peers.model` reads, and the ceiling
    if options.installed:
        environment.use_installed()
    environment.enter_main()
    from benchmarks.serving.campaign import Campaign

    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    try:
        Campaign(options).run()
    except KeyboardInterrupt:
        sys.exit("stopped; what was measured is kept")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description="Measure the service beside its peers."
    )
    names = "ours, fastapi, batcher, litserve, mosec, bentoml, ray, fer"
    parser.add_argument(
        "--servers",
        type=listed,
        default="ours,fastapi,batcher,litserve,mosec,bentoml,ray,fer,mosec:ours,batcher:ours",
        help=f"of {names}; with :ours our engine in it, with :nothing no model (default: all)",
    )
    parser.add_argument("--device", default="auto", help="of every server: auto, cpu, cuda:N")
    parser.add_argument("--workers", type=numbers, help="worker counts (default: 1,all cores)")
    parser.add_argument("--connections", type=numbers, default="1,8,64,256")
    parser.add_argument("--pictures", type=listed, default=",".join(PICTURES), help="(%(default)s)")
    parser.add_argument("--bodies", type=listed, default="form,raw")
    parser.add_argument("--cross", action="store_true", help="every picture at every connections")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--warm-up", type=float, default=3.0, help="seconds of load before")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overload-seconds", type=float, default=15.0)
    parser.add_argument("--idle-seconds", type=float, default=60.0)
    parser.add_argument("--only", type=listed, default=",".join(ONLY), help=f"of {', '.join(ONLY)}")
    parser.add_argument("--seed", type=int, default=0, help="of the order of servers")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument(
        "--installed", action="store_true", help="use this interpreter's packages; install none"
    )
    parser.add_argument("--add", action="store_true", help="go on in the results already there")
    options = parser.parse_args(arguments)
    if unknown := set(options.only) - set(ONLY):
        parser.error(f"--only {', '.join(unknown)}: expected {', '.join(ONLY)}")
    if unknown := set(options.pictures) - set(PICTURES):
        parser.error(f"--pictures {', '.join(unknown)}: expected {', '.join(PICTURES)}")
    options.out = options.out.absolute()
    return options


def listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def numbers(text: str) -> list[int]:
    return [int(part) for part in listed(text)]


if __name__ == "__main__":
    main()
