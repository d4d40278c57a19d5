"""The order of things: which server runs when, under what load, and where the figures go.

`load`, `behaviour` and `ceiling` measure, and `report` shows it.
"""

import argparse
import json
import math
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.serving import behaviour, ceiling, environment, proc, report
from benchmarks.serving.load import LoadError, closed_loop, find_wrk
from benchmarks.serving.peers.model import Model, open_model
from benchmarks.serving.pictures import (
    MAIN_CROP,
    MAIN_PHOTOGRAPH,
    PICTURES,
    Body,
    body,
    jpeg,
)
from benchmarks.serving.server import PEERS, Server, ServerError, Variant, check_answer, running
from service.engine.torch_engine import find_device
from service.pictures.search import NO_SEARCH, FaceSearch

MAIN_CONNECTIONS = 64
KINDS = ("ceiling", "starts", "loads", "floor", "behaviour", "problems")
# Of a server: kept in the results, and the next one has its turn.
_FAILURES = (ServerError, LoadError, OSError, ValueError, RuntimeError)


def round_order(variants: list[Variant], workers: int) -> Iterator[Variant | None]:
    """Yield what one round measures, in order; None stands for the ceiling.

    The ceiling comes right before what is compared with it, since machines drift within a round.

    Args:
        variants: The servers of the round, in order.
        workers: Of the variant of our service that is compared with the ceiling. Without that
            variant, the ceiling comes first.
    """
    ours = Variant("ours", "ours", workers)
    compared = ours if ours in variants else next(iter(variants), None)
    for variant in variants:
        if variant == compared:
            yield None
        yield variant


class Campaign:
    """One run of the benchmark."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.cores = len(os.sched_getaffinity(0))
        self.dice = random.Random(options.seed)
        self.file = options.out / "serving.json"
        self.began = time.monotonic()
        self.results = self._results()
        self._bodies: dict[tuple[str, bool, str], Body] = {}
        self._expected: dict[str, list[dict[str, float]]] = {}

    def run(self) -> None:
        """Measure what the options name; failures are kept in the results, and shown."""
        proc.adopt_orphans()
        if find_wrk() is None:
            raise SystemExit("wrk is not installed: apt-get install wrk")
        self.options.out.mkdir(parents=True, exist_ok=True)
        problems = environment.prepare(sorted({v.peer for v in self._variants([1])}))
        for peer, problem in problems.items():
            self._problem(peer, "environment", problem)
        with tempfile.TemporaryDirectory(prefix="serving-") as folder:
            self.folder = Path(folder)
            for kind, work in (
                ("ceiling", self._ceiling),
                ("throughput", self._throughput),
                ("floor", self._floor),
                ("overload", self._overload),
                ("behaviour", self._behaviour),
            ):
                if kind in self.options.only:
                    work({peer for peer in PEERS if peer not in problems})
        self.results["complete"] = True
        self._save()
        report.write(self.results, self.options.out)
        self._say(f"done: {self.file}")

    def _expect(self, picture: str) -> list[dict[str, float]]:
        """Return what the checkpoint says of each of a picture's faces."""
        if picture not in self._expected:
            search = NO_SEARCH if PICTURES[picture].is_crop else FaceSearch()
            (answer,) = self._model.answer([self._model.find(jpeg(picture), search)])
            self._expected[picture] = [face["probabilities"] for face in answer["faces"]]
        return self._expected[picture]

    @cached_property
    def _model(self) -> Model:
        return open_model()

    def _ceiling(self, _: set[str]) -> None:
        if "throughput" in self.options.only:
            return  # it is measured there, beside what is compared with it
        for number in range(self.options.rounds):
            self._measure_ceiling(number)

    def _throughput(self, available: set[str]) -> None:
        for number in range(self.options.rounds):
            variants = [v for v in self._variants() if v.peer in available]
            self.dice.shuffle(variants)
            for step in round_order(variants, self._most_workers):
                if step is not None:
                    for main in self._mains(step):
                        self._with(step, f"round {number + 1}", self._measure_loads, number, main)
                elif "ceiling" in self.options.only:
                    self._measure_ceiling(number)

    def _floor(self, available: set[str]) -> None:
        """CPU time of the servers alone: one worker on a core, a model that does nothing."""
        for number in range(self.options.rounds):
            crops = [v for v in self._variants([1]) if takes_crops(v) and v.peer in available]
            peers = list(dict.fromkeys(v.peer for v in crops))
            self.dice.shuffle(peers)
            for peer in peers:
                variant = Variant(peer, "nothing", 1)
                self._with(variant, f"floor {number + 1}", self._measure_floor, number)

    def _overload(self, available: set[str]) -> None:
        for variant in self._variants([self._most_workers]):
            if variant.peer in available and takes_crops(variant):
                self._with(variant, "overload", self._measure_overload)

    def _behaviour(self, available: set[str]) -> None:
        for variant in self._variants([self._most_workers]):
            if variant.peer in available and takes_crops(variant):
                self._with(variant, "behaviour", self._measure_behaviour)

    def _with(
        self,
        variant: Variant,
        what: str,
        work: Callable[..., None],
        number: int = 0,
        main: str = MAIN_CROP,
    ) -> None:
        """Run `work` with a server of its own; a failure is kept and the next server's turn.

        Args:
            variant: The server.
            what: Is measured, for progress.
            work: Called with the server, the round and the picture.
            number: Of the round.
            main: The picture that the server has to answer as expected, a crop or a photograph.
        """
        self._say(f"{what}: {variant.name}, {PICTURES[main].title}")
        sent = self._body(main, True, variant)
        try:
            with running(variant, self.folder / "server.log", sent) as server:
                if variant.engine not in ("nothing", "own"):
                    check_answer(server.ask(sent)[1], self._expect(main))
                work(server, number, main)
        except _FAILURES as error:
            self._problem(variant.name, what, str(error) or type(error).__name__)
        self._save()

    def _measure_ceiling(self, number: int) -> None:
        seconds = min(1.0, self.options.seconds / 4)
        for engine in ("ours", "plain"):
            self._say(f"ceiling {number + 1}, engine {engine}")
            try:
                found = ceiling.measure(engine, self.cores, seconds)
                self.results["ceiling"].append({"round": number} | found)
            except _FAILURES as error:
                self._problem(f"engine {engine}", "ceiling", str(error))
            self._save()

    def _measure_loads(self, server: Server, number: int, main: str) -> None:
        variant, options = server.variant, self.options
        found = {"picture": main, "ready_s": server.ready_s, "rest_mb": server.pss_mb()}
        self.results["starts"].append(self._row(variant, number) | found)
        self._warm_up(server, main)
        for picture, form, connections in self._cells(main):
            sent = self._body(picture, form, variant)
            if server.path(sent) is None:
                continue
            at_most = connections == max(options.connections) and picture == main and form
            load = closed_loop(server, sent, connections, options.seconds, memory=at_most)
            self._keep_load("loads", variant, number, sent, connections, load)

    def _measure_floor(self, server: Server, number: int, main: str) -> None:
        self._warm_up(server, main)
        for picture in ("48", "256"):
            for form in (True, False):
                sent = self._body(picture, form, server.variant)
                if server.path(sent) is not None:
                    load = closed_loop(server, sent, MAIN_CONNECTIONS, self.options.seconds)
                    self._keep_load("floor", server.variant, number, sent, MAIN_CONNECTIONS, load)

    def _measure_overload(self, server: Server, _: int, main: str) -> None:
        self._warm_up(server, main)
        sent = self._body(main, True, server.variant)
        seconds = self.options.overload_seconds
        found = behaviour.overload(server, sent, seconds, self.options.seconds)
        self._keep("overload", server.variant, found)

    def _measure_behaviour(self, server: Server, _: int, main: str) -> None:
        variant = server.variant
        sent = self._body(main, True, variant)
        spoilt = self._body("poison", True, variant)
        self._warm_up(server, main)
        for name, work in (
            ("poison", lambda: behaviour.poison(server, sent, spoilt)),
            ("gone_64", lambda: behaviour.gone(server, sent, 64)),
            ("gone_512", lambda: behaviour.gone(server, sent, 512)),
            ("idle", lambda: behaviour.idle(server, sent, self.options.idle_seconds)),
            ("sigterm", lambda: behaviour.sigterm(server, sent)),
        ):
            try:
                self._keep(name, variant, work())
            except _FAILURES as error:
                self._problem(variant.name, name, str(error) or type(error).__name__)

    @property
    def _most_workers(self) -> int:
        return max(self.options.workers or [self.cores])

    def _warm_up(self, server: Server, main: str) -> None:
        sent = self._body(main, True, server.variant)
        closed_loop(server, sent, MAIN_CONNECTIONS, self.options.warm_up)

    def _variants(self, workers: list[int] | None = None) -> list[Variant]:
        counts = workers or self.options.workers or sorted({1, self.cores})
        found = []
        for name in self.options.servers:
            peer, _, engine = name.partition(":")
            if peer not in PEERS:
                raise SystemExit(f"--servers {peer}: expected {', '.join(PEERS)}")
            engine = engine or PEERS[peer].engine
            found += [Variant(peer, engine, count) for count in counts]
        return list(dict.fromkeys(found))

    def _mains(self, variant: Variant) -> list[str]:
        """Return the main picture of each kind that is asked for and that a server takes."""
        mains = [MAIN_PHOTOGRAPH, *([MAIN_CROP] if takes_crops(variant) else [])]
        return [main for main in mains if self._alike(main)]

    def _alike(self, main: str) -> list[str]:
        """Return the pictures asked for that are photographs, or crops, as another one is."""
        wanted = PICTURES[main].is_crop
        return [p for p in self.options.pictures if PICTURES[p].is_crop == wanted]

    def _cells(self, main: str) -> Iterator[tuple[str, bool, int]]:
        """Yield picture, form or raw, and connections of each load."""
        for picture in self._alike(main):
            for form in [kind == "form" for kind in self.options.bodies]:
                for connections in self.options.connections:
                    compared = connections == PICTURES[picture].connections
                    central = (picture == main and form) or compared
                    lone = picture == main and connections == 1
                    if self.options.cross or central or lone or len(self.options.connections) == 1:
                        yield picture, form, connections

    def _body(self, picture: str, form: bool, variant: Variant) -> Body:
        key = (picture, form, PEERS[variant.peer].field)
        if key not in self._bodies:
            self._bodies[key] = body(picture, form=form, field=key[2])
        return self._bodies[key]

    def _row(self, variant: Variant, number: int | None = None) -> dict[str, Any]:
        row = {"peer": variant.peer, "engine": variant.engine, "workers": variant.workers}
        return row if number is None else {"round": number} | row

    def _keep_load(
        self, kind: str, variant: Variant, number: int, sent: Body, connections: int, load: Any
    ) -> None:
        cell = {"picture": sent.picture, "form": sent.form, "connections": connections}
        self.results[kind].append(self._row(variant, number) | cell | load.as_dict())
        errors = f", {load.errors} errors" if load.errors else ""
        self._say(
            f"  {variant.name:22} {sent.name:10} {connections:4} conn.: "
            f"{load.requests_per_s:7.1f}/s, p50 {load.p50_ms:7.1f}, p99 {load.p99_ms:8.1f} ms, "
            f"{load.cpu_ms:6.2f} CPU ms{errors}"
        )
        self._save()

    def _keep(self, name: str, variant: Variant, found: dict[str, Any]) -> None:
        self.results["behaviour"].append(self._row(variant) | {"what": name} | _without_nan(found))
        self._say(f"  {variant.name:22} {name}: {json.dumps(_short(found))}")
        self._save()

    def _problem(self, who: str, what: str, problem: str) -> None:
        self.results["problems"].append({"who": who, "what": what, "problem": problem})
        self._say(f"  PROBLEM {who}, {what}: {problem}")

    def _say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.began:6.0f} s] {text}", flush=True)

    def _save(self) -> None:
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.results, indent=1) + "\n")
        part.replace(self.file)

    def _results(self) -> dict[str, Any]:
        if self.options.add and self.file.is_file():
            return json.loads(self.file.read_text()) | {"complete": False}
        peers = {v.peer for v in self._variants([1])}
        shown = {k: v for k, v in vars(self.options).items() if k not in ("out", "add")}
        return {
            "complete": False,
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "machine": {
                "cores": self.cores,
                "cpu": _cpu_name(),
                "gpu": _gpu_name(self.options.device),
                "python": platform.python_version(),
                "kernel": platform.release(),
                "load_before": os.getloadavg()[0],
            },
            "versions": {p: environment.versions(p, PEERS[p].packages) for p in sorted(peers)},
            "options": shown,
            **{kind: [] for kind in KINDS},
        }


def takes_crops(variant: Variant) -> bool:
    """Tell whether a server can be told that a picture is a crop; what finds by itself cannot."""
    return variant.engine != "own"


def _without_nan(found: dict[str, Any]) -> dict[str, Any]:
    """Return it as JSON can hold it: null where nothing was seen to measure."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in found.items()}


def _short(found: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in found.items()}


def _gpu_name(device: str) -> str | None:
    """Return the name of the GPU that servers use; None where they use the CPU."""
    found = find_device(device)
    return torch.cuda.get_device_name(found) if found.type == "cuda" else None


def _cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), "?")
