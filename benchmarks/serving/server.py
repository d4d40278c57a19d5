"""One server under test: started, waited for, looked at, and ended with all that it started."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.serving import proc
from benchmarks.serving.environment import ROOT, python_of
from benchmarks.serving.pictures import PICTURES, Body

START_TIMEOUT_S = 120.0
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "DEVICE")
_OWN: set[int] = set()  # processes that the benchmark itself started and that serve nothing


@dataclass(frozen=True)
class Peer:
    """How one kind of server is started and asked.

    Attributes:
        title: In tables.
        module: In `benchmarks.serving.peers`.
        form_path: Takes a multipart form.
        raw_path: Takes the picture as the body; None where the peer has no way to.
        field: The form's field that holds the picture.
        engine: What classifies in it where nothing else is asked for; "own" is something else than
            our checkpoint, and finds faces by itself.
        crop_query: Added to the path where pictures are crops.
        packages: Whose versions are reported.
    """

    title: str
    module: str
    form_path: str = "/predict"
    raw_path: str | None = "/predict"
    field: str = "image"
    engine: str = "plain"
    crop_query: str = ""
    packages: tuple[str, ...] = ()


WEB = ("fastapi", "starlette", "uvicorn")
PEERS = {
    "ours": Peer("attention-fer", "ours", engine="ours", crop_query="?detect=never", packages=WEB),
    "fastapi": Peer(
        "FastAPI, model in the handler", "fastapi_handler", raw_path="/predict/raw", packages=WEB
    ),
    "batcher": Peer(
        "FastAPI, greedy batcher", "fastapi_batcher", raw_path="/predict/raw", packages=WEB
    ),
    "litserve": Peer("LitServe", "litserve_peer", raw_path=None, packages=("litserve",)),
    "mosec": Peer("MOSEC", "mosec_peer", packages=("mosec",)),
    "bentoml": Peer(
        "BentoML", "bentoml_peer", raw_path=None, field="images", packages=("bentoml",)
    ),
    "ray": Peer("Ray Serve", "ray_peer", raw_path="/predict/raw", packages=("ray",)),
    "fer": Peer(
        "FastAPI, the package fer",
        "fer_peer",
        raw_path="/predict/raw",
        engine="own",
        packages=("fer", "tensorflow-cpu", *WEB),
    ),
}


@dataclass(frozen=True)
class Variant:
    """A peer, the engine in it, and how many workers it may have."""

    peer: str
    engine: str
    workers: int

    @property
    def name(self) -> str:
        """For progress: peer, engine, workers."""
        return f"{self.peer}:{self.engine}:{self.workers}"

    @property
    def title(self) -> str:
        """For tables, which say workers apart."""
        engine = {"ours": ", our engine", "nothing": ", no model"}.get(self.engine, "")
        return PEERS[self.peer].title + ("" if self.peer == "ours" else engine)


class ServerError(Exception):
    """A server that did not start, or did not answer as it should."""


class Server:
    """A running server; use `running`."""

    def __init__(self, variant: Variant, log: Path, crops: bool) -> None:
        """Start it, for crops or for photographs."""
        self.variant, self.peer = variant, PEERS[variant.peer]
        self._query = self.peer.crop_query if crops else ""
        self.port = _free_port()
        self.log = log
        self.ready_s = 0.0
        self.began = time.monotonic()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [python_of(variant.peer), "-m", f"benchmarks.serving.peers.{self.peer.module}"],
                cwd=ROOT,
                env=environ_of(variant, self.port, crops),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=partial(_begin, variant.engine == "nothing"),
            )

    def path(self, body: Body) -> str | None:
        """Return where such a body goes; None where the peer has no way to take it."""
        path = self.peer.form_path if body.form else self.peer.raw_path
        return path and path + self._query

    def url(self, body: Body) -> str:
        """Return the same as a URL."""
        return f"http://127.0.0.1:{self.port}{self.path(body)}"

    def processes(self) -> list[proc.Stat]:
        """Return all its processes, those included whose parents ended before them."""
        found, me = proc.all_processes(), os.getpid()
        orphans = {s.pid for s in found.values() if s.parent == me and s.pid not in _OWN}
        return proc.tree(orphans | {self.process.pid}, found)

    def cpu_s(self) -> float:
        """Return the CPU seconds that all its processes have used so far."""
        return sum(stat.cpu_s for stat in self.processes())

    def pss_mb(self) -> float:
        """Return the memory of all its processes in MB, what they share counted once."""
        return proc.pss_mb(stat.pid for stat in self.processes())

    def ask(self, body: Body, timeout_s: float = 30.0) -> tuple[int, bytes, float]:
        """Send one request; returns status, answer and milliseconds."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request(
                "POST", self.path(body) or "", body.data, {"Content-Type": body.kind}
            )
            answer = connection.getresponse()
            data = answer.read()
        return answer.status, data, 1e3 * (time.monotonic() - began)

    def wait_ready(self, body: Body) -> None:
        """Wait until it answers a picture; `ready_s` says how long that took since its start."""
        while time.monotonic() - self.began < START_TIMEOUT_S:
            if self.process.poll() is not None:
                raise ServerError(f"it ended with {self.process.returncode}: {self.last_words()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask(body)[0] == 200:
                    self.ready_s = time.monotonic() - self.began
                    return
            time.sleep(0.05)
        raise ServerError(f"not ready after {START_TIMEOUT_S:.0f} s: {self.last_words()}")

    def settle(self, limit_s: float = 15.0) -> None:
        """Wait until it has stopped starting: no new process, and little CPU time, for a second."""
        give_up, calm, before = time.monotonic() + limit_s, 0, (0, self.cpu_s())
        while calm < 2 and time.monotonic() < give_up:
            time.sleep(0.5)
            now = (len(self.processes()), self.cpu_s())
            calm = calm + 1 if now[0] == before[0] and now[1] - before[1] < 0.15 else 0
            before = now

    def last_words(self) -> str:
        """Return the end of its log."""
        text = self.log.read_text(errors="replace").strip()
        return text[-600:] or "it said nothing"

    def end(self) -> None:
        """Kill whatever is left of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 5.0
        while self.processes() and time.monotonic() < deadline:
            self.process.poll()
            time.sleep(0.05)
        for _ in range(20):
            if not (left := self.processes()):
                break
            for stat in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(stat.pid, signal.SIGKILL)
            time.sleep(0.1)
        self.process.wait()
        _bury()


@contextlib.contextmanager
def running(variant: Variant, log: Path, body: Body) -> Iterator[Server]:
    """Run a server until it is ready and calm, then for as long as the block lasts.

    Args:
        variant: Which server.
        log: Where its output goes.
        body: What it is asked until it answers; a server is for crops or for photographs, as this
            is one or the other.
    """
    server = Server(variant, log, PICTURES[body.picture].is_crop)
    try:
        server.wait_ready(body)
        server.settle()
        yield server
    finally:
        server.end()


@contextlib.contextmanager
def own(process: "subprocess.Popen[Any]") -> Iterator["subprocess.Popen[Any]"]:
    """Keep a process of the benchmark apart from the server's; it is gone after the block."""
    _OWN.add(process.pid)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        _OWN.discard(process.pid)


def check_answer(answer: bytes, expected: list[dict[str, float]], tolerance: float = 0.02) -> None:
    """Refuse an answer that has other faces, or whose probabilities are not the checkpoint's.

    Args:
        answer: A body.
        expected: The probabilities of each face.
        tolerance: Of a probability.

    Raises:
        ServerError: Names what differs.
    """
    body = json.loads(answer)
    faces = (body[0] if isinstance(body, list) else body)["faces"]
    if len(faces) != len(expected):
        raise ServerError(f"it found {len(faces)} faces, expected {len(expected)}")
    for face, probabilities in zip(faces, expected, strict=True):
        for emotion, probability in probabilities.items():
            found = face["probabilities"].get(emotion)
            if found is None or abs(found - probability) > tolerance:
                raise ServerError(f"{emotion} is {found}, expected {probability:.3f}")


def _begin(one_core: bool) -> None:
    """Run in the new process: end with the benchmark; stay on one of the cores if asked to."""
    proc.die_with_parent()
    if one_core:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def environ_of(variant: Variant, port: int, crops: bool) -> dict[str, str]:
    """Return the environment of a server's process.

    Args:
        variant: Which server.
        port: Where it is to listen.
        crops: Whether pictures are crops, in which nobody looks for faces.
    """
    kept = {key: os.environ[key] for key in _KEPT if key in os.environ}
    packages = os.environ.get("PYTHONPATH", "")
    return kept | {
        "PORT": str(port),
        "WORKERS": str(variant.workers),
        "ENGINE": variant.engine,
        "DETECT": "never" if crops else "auto",
        # Threads of one inference; as many processes as cores are what may be parallel.
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), packages))),
        "PYTHONUNBUFFERED": "1",
        # No peer may call home while it is measured.
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _bury() -> None:
    """Reap orphans that became this process's children."""
    with contextlib.suppress(ChildProcessError):
        for pid in [s.pid for s in proc.all_processes().values() if s.parent == os.getpid()]:
            if pid not in _OWN:
                os.waitpid(pid, os.WNOHANG)
