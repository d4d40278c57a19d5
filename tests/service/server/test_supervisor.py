"""Tests of `service.server.supervisor`: several real processes behind one port."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from prometheus_client.mmap_dict import MmapedDict

from service.server.registry import WorkerRegistry
from service.server.supervisor import Supervisor
from tests.service.made_pictures import flat
from tests.service.server_processes import (
    ALL_READY,
    REPOSITORY,
    Server,
    only_line,
    ready,
    running,
    total,
)
from tests.service.serving import STATED
from tests.waiting import eventually
from training.model.checkpoint import save_checkpoint
from training.model.labels import FER2013_EMOTIONS
from training.model.manifest import Manifest, NetworkConfig
from training.model.network import AttentionFER

pytestmark = pytest.mark.anyio

WORKERS = 2
REQUESTS = 200
NO_DETECTOR = {"FER_DETECTOR": "none"}


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    checkpoint = make_checkpoint(tmp_path_factory.mktemp("weights") / "random.safetensors")
    with running(settings(checkpoint), ready=ALL_READY) as server:
        yield server
        folder = folder_of(server)
        assert folder.is_dir()
        assert server.stop() == 0
        assert not folder.exists()
        assert "Traceback" not in server.log


def make_checkpoint(path: Path) -> Path:
    config = NetworkConfig(widths=(8, 16), depths=(1, 1))
    manifest = Manifest("random", "0", config, FER2013_EMOTIONS, prior=STATED.prior)
    save_checkpoint(path, AttentionFER(config), manifest, torch.float32)
    return path


def settings(checkpoint: Path) -> dict[str, str]:
    """Return an environment without a detector: each picture here is a face, found at once."""
    found = {"FER_WORKERS": str(WORKERS), "FER_CHECKPOINT": str(checkpoint)}
    return found | NO_DETECTOR


def workers_of(server: Server) -> dict[int, int]:
    """Return the process ids of workers and engines, by slot."""
    pid = server.process.pid
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    arguments = {child: _arguments(child) for child in children}
    # One that was forked just now still shows its parent's.
    return {int(args[3]): child for child, args in arguments.items() if len(args) > 4}


def folder_of(server: Server) -> Path:
    return Path(_arguments(next(iter(workers_of(server).values())))[4])


def _arguments(process: int) -> list[str]:
    return Path(f"/proc/{process}/cmdline").read_text().split("\0")


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


async def post_many(server: Server, count: int, clients: int = 16) -> int:
    """Post faces over many connections; returns how many were answered."""
    async with httpx.AsyncClient(
        base_url=server.url, timeout=60, limits=httpx.Limits(max_keepalive_connections=0)
    ) as client:
        numbers = iter(range(count))

        async def post() -> int:
            answered = 0
            for number in numbers:
                response = await client.post("/predict", content=flat(number))
                answered += response.status_code == 200
            return answered

        return sum(await asyncio.gather(*(post() for _ in range(clients))))


async def test_requests_over_several_workers_are_counted_exactly(several: Server) -> None:
    before = several.sample("fer_faces_total")
    assert await post_many(several, REQUESTS) == REQUESTS
    assert several.sample("fer_faces_total") - before == REQUESTS
    assert several.sample("fer_requests_total", route="/predict", status="200") == REQUESTS
    for process in WorkerRegistry(folder_of(several), WORKERS).processes().values():
        shares = MmapedDict.read_all_values_from_file(folder_of(several) / f"counter_{process}.db")
        share = sum(value for key, value, *_ in shares if "fer_faces_total" in key)
        assert REQUESTS / 10 < share < REQUESTS, "one worker did it all"


async def test_each_worker_has_as_many_connections(several: Server) -> None:
    workers = WorkerRegistry(folder_of(several), WORKERS)
    streams, held = [], []
    for _ in range(8 * WORKERS):
        streams.append(await asyncio.open_connection("127.0.0.1", several.port))
        streams[-1][1].write(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        await streams[-1][0].readuntil(b"}")  # somebody has taken it
        held.append([workers.get_connections(slot) for slot in workers.slots])
    assert sum(held[-1]) == 8 * WORKERS
    # One more than the other, or two where that one stood still for a moment; chance alone would
    # hardly ever stay within that all the way.
    assert all(max(each) - min(each) <= 2 for each in held), held
    for _, writer in streams:
        writer.close()


def test_gauges_and_processes_are_of_all_workers(several: Server) -> None:
    assert several.sample("fer_queue_limit_faces") == WORKERS * 1024
    eventually(lambda: several.sample("fer_ready") == 1)
    assert several.sample("fer_model_info") == 1
    workers = workers_of(several)
    for slot, process in workers.items():
        shown = several.sample("process_resident_memory_bytes", worker=str(slot))
        fields = dict(
            line.split(":", 1)
            for line in Path(f"/proc/{process}/status").read_text().splitlines()
            if ":" in line
        )
        assert shown == pytest.approx(int(fields["VmRSS"].split()[0]) * 1024, rel=0.05)


def test_every_file_had_its_room_from_the_start(several: Server) -> None:
    # What the library made by itself would have holes, and a full disk would end the worker.
    for file in folder_of(several).iterdir():
        status = file.stat()
        assert status.st_blocks * 512 >= status.st_size, file.name
        assert status.st_mode & 0o077 == 0, file.name


async def test_a_killed_worker_is_replaced_and_the_count_goes_on(several: Server) -> None:
    before = several.sample("fer_faces_total")
    victim = workers_of(several)[1]
    os.kill(victim, signal.SIGKILL)
    several.wait_for(r"worker 1 ended with -9; starts again in 0 s")
    # The other goes on meanwhile: nobody knocks at the dead one's door.
    text = httpx.get(f"{several.url}/metrics", timeout=60).text
    shown = {name: total(text, f"fer_{name}") for name in ("ready", "workers_ready", "workers")}
    assert shown == {"ready": 1, "workers_ready": WORKERS - 1, "workers": WORKERS}
    assert ready(several)
    assert await post_many(several, 30, clients=3) == 30
    eventually(lambda: several.sample("fer_workers_ready") == WORKERS)
    assert workers_of(several)[1] != victim
    assert several.sample("fer_faces_total") == before + 30
    assert several.sample("fer_ready") == 1
    assert await post_many(several, 50) == 50
    assert several.sample("fer_faces_total") == before + 80


@pytest.mark.slow
def test_one_that_hangs_turns_readiness_off_until_it_goes_on(random_checkpoint: Path) -> None:
    with running(settings(random_checkpoint), ready=ALL_READY) as server:

        def answers() -> int:
            # Of the one that goes on; the other has taken nothing since.
            with contextlib.suppress(httpx.TimeoutException):
                return httpx.get(f"{server.url}/health/ready", timeout=1).status_code
            return 0

        assert answers() == 200
        victim = workers_of(server)[1]
        os.kill(victim, signal.SIGSTOP)
        eventually(lambda: answers() == 503)
        os.kill(victim, signal.SIGCONT)
        eventually(lambda: answers() == 200)
        assert server.stop() == 0


@pytest.mark.slow
def test_workers_end_with_their_supervisor(random_checkpoint: Path) -> None:
    with running(settings(random_checkpoint), ready=ALL_READY) as server:
        workers, folder = workers_of(server), folder_of(server)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
        eventually(lambda: not any(map(alive, workers.values())))
        eventually(lambda: not folder.exists())


def ended(environ: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Start a service that cannot, and wait for its end."""
    return subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=REPOSITORY,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_what_no_worker_can_serve_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    environ = settings(path) | {"FER_HOST": "127.0.0.1", "FER_PORT": "0"}
    done = ended(environ)
    assert done.returncode == 2
    assert f"{path}: no such file" in only_line(done.stderr)


@pytest.mark.parametrize("engine", ["in-process", "shared"])
def test_a_prior_that_the_checkpoint_cannot_have_is_said_once(engine: str, tmp_path: Path) -> None:
    environ = settings(make_checkpoint(tmp_path / "random.safetensors"))
    environ |= {"FER_HOST": "127.0.0.1", "FER_PORT": "0", "FER_ENGINE": engine}
    done = ended(environ | {"FER_PRIOR": "joy:1"})
    assert done.returncode == 2
    said = only_line(done.stderr)
    assert "FER_PRIOR is 'joy:1', but prior needs a share for each of anger" in said


def test_the_port_of_another_service_is_refused_at_once() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        environ = settings(Path("any")) | {
            "FER_HOST": "127.0.0.1",
            "FER_PORT": str(other.getsockname()[1]),
        }
        done = ended(environ)
    assert done.returncode == 2
    assert "Address already in use" in done.stderr


# The supervisor by itself, around processes that are no service.


def sleeper(seconds: float = 60) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", str(seconds)], stdin=subprocess.PIPE)


@pytest.fixture
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCHLD)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
class TestSupervisor:
    def test_a_first_worker_that_fails_ends_it(self, tmp_path: Path) -> None:
        started: list[int] = []

        def start(slot: int) -> "subprocess.Popen[bytes]":
            started.append(slot)
            return subprocess.Popen(["false"], stdin=subprocess.PIPE)

        assert Supervisor(WorkerRegistry(tmp_path, 3), start, 1.0, "here").run() == 1
        assert started == [0]

    def test_a_hung_worker_is_killed_and_another_one_started(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        processes: list[subprocess.Popen[bytes]] = []
        monotonic = time.monotonic

        class Workers(WorkerRegistry):
            """Time passes once the supervisor has seen that the worker is healthy."""

            def seconds_since_report(self, slot: int) -> float:
                if self.is_healthy(slot):
                    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + 100.0)
                return super().seconds_since_report(slot)

        workers = Workers(tmp_path, 1)

        def start(slot: int) -> "subprocess.Popen[bytes]":
            processes.append(sleeper())
            if len(processes) == 1:
                workers.report(slot, True)  # and then never again
            else:
                os.kill(os.getpid(), signal.SIGTERM)
            return processes[-1]

        assert Supervisor(workers, start, 1.0, "here").run() == 0
        assert [process.returncode for process in processes] == [-signal.SIGKILL, -signal.SIGTERM]

    def test_one_that_does_not_end_is_killed(self, tmp_path: Path) -> None:
        def start(slot: int) -> "subprocess.Popen[bytes]":
            code = "import signal, sys; signal.signal(15, signal.SIG_IGN); print(flush=True);"
            process = subprocess.Popen(
                [sys.executable, "-c", code + "signal.pause()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.close()
            os.kill(os.getpid(), signal.SIGTERM)
            return process

        supervisor = Supervisor(WorkerRegistry(tmp_path, 1), start, 0.0, "here", grace_s=0.0)
        assert supervisor.run() == 1
