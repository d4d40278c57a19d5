"""What goes wrong around the service, done to the real server; each test fills a row of a table."""

import asyncio
import contextlib
import json
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.service.made_pictures import flat
from tests.service.server.test_supervisor import make_checkpoint, settings, workers_of
from tests.service.server_processes import (
    ALL_READY,
    REPOSITORY,
    Server,
    only_line,
    ready,
    running,
    total,
)
from tests.service.serving import serving
from tests.waiting import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

FAULTY = "tests.service.faulty_server"
HAPPY = flat(130)
Row = Callable[[str, str, str, float], None]


@pytest.fixture(scope="module")
def row(request: pytest.FixtureRequest) -> Iterator[Row]:
    """Collect the table: fault, what the client saw, what was lost, seconds until well."""
    rows: list[tuple[str, str, str, float]] = []
    yield lambda *cells: rows.append(cells)
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        reporter.write_line("\nfault | the client saw | lost | seconds until well")
        for fault, saw, lost, seconds in rows:
            reporter.write_line(f"{fault} | {saw} | {lost} | {seconds:.1f}")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("weights") / "random.safetensors")


def faulty(engine: str, **environ: str) -> AbstractContextManager[Server]:
    return running({"TEST_ENGINE": engine} | environ, FAULTY)


@asynccontextmanager
async def load(server: Server, clients: int = 16) -> AsyncIterator[Counter[str]]:
    """Post faces all the while, and count what the clients saw."""
    seen: Counter[str] = Counter()
    stopping = asyncio.Event()

    async def client() -> None:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            while not stopping.is_set():
                try:
                    response = await http.post("/predict", content=HAPPY)
                    code = response.json().get("code", "")
                    seen[f"{response.status_code} {code}".strip()] += 1
                except httpx.TransportError as error:
                    seen[type(error).__name__] += 1
                    if isinstance(error, httpx.ConnectError):
                        await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(client()) for _ in range(clients)]
    try:
        yield seen
    finally:
        stopping.set()
        await asyncio.gather(*tasks)


async def answered(seen: Counter[str], more: int) -> None:
    """Wait until so many more requests were answered."""
    goal = seen["200"] + more
    while seen["200"] < goal:
        await asyncio.sleep(0.01)


def shown(seen: Counter[str]) -> str:
    return ", ".join(f"{count}x {what}" for what, count in seen.most_common())


def all_work(server: Server) -> bool:
    text = httpx.get(f"{server.url}/metrics", timeout=60).text
    return total(text, "fer_workers_ready") == total(text, "fer_workers")


async def in_thread(condition: Callable[[], bool]) -> float:
    return await asyncio.to_thread(eventually, condition)


@dataclass
class AcceptedLoad:
    """Clients that know which of their requests the service has read.

    Each sends a head with `Expect: 100-continue`. The service asks for the body when it has read
    the head: from then on it must answer. A connection that ends before was idle to the service,
    even if a head was on its way. A client stops at its first request that is not accepted.

    Attributes:
        seen: How many requests had each outcome: a status, "lost" after they were accepted, or
            "not accepted".
        opened: How many connections were opened.
    """

    port: int
    keep: bool
    seen: Counter[str] = field(default_factory=Counter)
    opened: int = 0

    async def run(self) -> None:
        """Send one request after another until one is not accepted."""
        head = (
            b"POST /predict HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
            b"content-length: %d\r\nconnection: %s\r\n\r\n"
        ) % (len(HAPPY), b"keep-alive" if self.keep else b"close")
        streams = None
        while True:
            try:
                streams = streams or await self._open()
                streams[1].write(head)
                answer = await streams[0].readuntil(b"\r\n\r\n")
            except (OSError, asyncio.IncompleteReadError):
                self.seen["not accepted"] += 1
                break
            outcome, kept = await self._finish(*streams, answer)
            self.seen[outcome] += 1
            if not kept:
                streams[1].close()
                streams = None
        if streams:
            streams[1].close()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        streams = await asyncio.open_connection("127.0.0.1", self.port)
        self.opened += 1
        return streams

    async def _finish(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes
    ) -> tuple[str, bool]:
        """Send the body and read the answer; returns the outcome, and whether to go on here."""
        try:
            if head.startswith(b"HTTP/1.1 100 "):
                writer.write(HAPPY)
                head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            size = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            await reader.readexactly(size)
        except (OSError, asyncio.IncompleteReadError):
            return "lost", False
        return head.split()[1].decode(), b"connection: close" not in lines


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "fresh"])
async def test_sigterm_under_load(row: Row, keep: bool) -> None:
    clients = 16
    with faulty("steady") as server:
        load = AcceptedLoad(server.port, keep)
        tasks = [asyncio.create_task(load.run()) for _ in range(clients)]
        await answered(load.seen, 100)
        if keep:
            assert load.opened == clients
        began = time.monotonic()
        assert await asyncio.to_thread(server.stop) == 0
        took = time.monotonic() - began
        await asyncio.gather(*tasks)
        assert set(load.seen) == {"200", "not accepted"}, load.seen
        assert load.seen["not accepted"] == clients
        assert "Traceback" not in server.log
    name = "kept connections" if keep else "a connection a request"
    row(f"SIGTERM under load, {name}", shown(load.seen), f"{load.seen['lost']} accepted", took)


async def test_sigterm_to_several_workers_under_load(row: Row, checkpoint: Path) -> None:
    with running(settings(checkpoint), ready=ALL_READY) as server:
        async with load(server) as seen:
            await answered(seen, 100)
            began = time.monotonic()
            assert await asyncio.to_thread(server.stop) == 0
            took = time.monotonic() - began
        del seen["ConnectError"]
        assert seen.total() == seen["200"], seen
    row("SIGTERM to 2 workers under load", shown(seen), "0 accepted", took)


async def test_sigkill_of_a_worker_under_load(row: Row, checkpoint: Path) -> None:
    clients = 16
    with running(settings(checkpoint), ready=ALL_READY) as server:
        async with load(server, clients) as seen:
            await answered(seen, 100)
            os.kill(workers_of(server)[0], signal.SIGKILL)
            began = time.monotonic()
            await asyncio.to_thread(server.wait_for, "worker 0 ended with -9")
            assert await asyncio.to_thread(ready, server)
            await answered(seen, 100)  # the other goes on
            await in_thread(lambda: all_work(server))
            took = time.monotonic() - began
        broken = seen.total() - seen["200"]
        # At most what it held: one request a client, and what waited to be accepted.
        assert 0 < broken <= 2 * clients, seen
        kinds = set(seen) - {"200"}
        assert kinds <= {"ReadError", "RemoteProtocolError", "ConnectError", "WriteError"}, seen
        assert server.stop() == 0
    row("SIGKILL of 1 of 2 workers under load", shown(seen), f"{broken} it held", took)


async def test_an_engine_that_fails_on_one_face(row: Row) -> None:
    with faulty("broken") as server:
        async with (
            load(server) as seen,
            httpx.AsyncClient(base_url=server.url, timeout=60) as client,
        ):
            await answered(seen, 20)
            for _ in range(10):
                response = await client.post("/predict", content=flat(0))
                assert (response.status_code, response.json()["code"]) == (500, "inference_failed")
                assert "secret" not in response.text
            await answered(seen, 20)
        assert set(seen) == {"200"}, seen
        assert ready(server)
        assert server.stop() == 0
    row("engine raises for one face", f"its 10x 500, {shown(seen)} for others", "0", 0.0)


async def test_an_engine_that_always_fails(row: Row) -> None:
    with faulty("dead") as server:
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            codes = Counter(
                response.json()["code"]
                for response in await asyncio.gather(
                    *(client.post("/predict", content=HAPPY) for _ in range(40))
                )
            )
        assert codes == {"inference_failed": 40}
        # A traceback a batch, not a face.
        assert server.log.count("Traceback") <= 40
        assert server.stop() == 0
    row("engine raises for all", "40x 500 inference_failed", "0", 0.0)


async def test_out_of_memory(row: Row) -> None:
    with faulty("small") as server:
        async with load(server, 32) as seen:
            await answered(seen, 200)
        assert set(seen) == {"200"}, seen
        failures = server.sample("fer_engine_failures_total")
        assert failures > 0, "no batch was too large"
        assert server.stop() == 0
    row("out of memory from a batch", shown(seen), f"0 ({failures:.0f} batches halved)", 0.0)


async def test_an_engine_that_hangs(row: Row, tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    environ = {"TEST_HANG_FILE": str(hang), "FER_TIMEOUT_S": "2"}
    with faulty("hanging", **environ) as server:
        async with load(server, 4) as seen:
            await answered(seen, 20)
            hang.touch()
            before = seen.copy()
            unready = await in_thread(lambda: not ready(server))
            # Each of the four waits for its own deadline; who comes later is told at once.
            while seen["504 deadline_exceeded"] < 4:
                await asyncio.sleep(0.01)
            assert httpx.get(f"{server.url}/health/live").status_code == 200
            assert server.sample("fer_ready") == 0
            during = seen - before
            hang.unlink()
            took = await in_thread(lambda: ready(server))
            await answered(seen, 20)
        told = {"200", "504 deadline_exceeded", "503 overloaded", "503 not_ready"}
        assert set(during) <= told, during
        assert server.stop() == 0
    row(f"engine hangs (not ready after {unready:.1f} s)", shown(during), "0 unanswered", took)


async def test_a_decoder_that_never_ends(row: Row) -> None:
    with faulty("stuck", FER_TIMEOUT_S="1", FER_DECODE_THREADS="2") as server:
        assert ready(server)
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            responses = await asyncio.gather(
                *(client.post("/predict", content=HAPPY) for _ in range(6))
            )
            codes = Counter(response.json()["code"] for response in responses)
            assert codes == {"deadline_exceeded": 6}
            response = await client.get("/health/ready")
            assert (response.status_code, response.json()["code"]) == (503, "not_ready")
            assert (await client.get("/health/live")).status_code == 200
        began = time.monotonic()
        assert server.stop() == 0  # it does not wait for the decoder
        took = time.monotonic() - began
    row("decoder never ends", "6x 504; not ready; exit 0 at SIGTERM", "0 unanswered", took)


async def test_clients_that_vanish(row: Row, tmp_path: Path) -> None:
    hang = tmp_path / "hang"
    hang.touch()
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(HAPPY)
    with running(
        {"TEST_ENGINE": "hanging", "TEST_HANG_FILE": str(tmp_path / "none")}, FAULTY
    ) as server:

        def visit(sent: bytes) -> socket.socket:
            connection = socket.create_connection(("127.0.0.1", server.port))
            connection.sendall(sent)
            return connection

        uploading = [visit(head + HAPPY[:50]) for _ in range(50)]
        eventually(lambda: server.sample("fer_connections") >= 50)
        for connection in uploading:
            connection.close()
        began = time.monotonic()
        eventually(
            lambda: server.sample("fer_requests_total", route="/predict", status="499") == 50
        )
        took = time.monotonic() - began
        assert httpx.post(f"{server.url}/predict", content=HAPPY).status_code == 200
    row("50 clients vanish mid-upload", "nothing", "0 of others", took)

    environ = {"TEST_ENGINE": "hanging", "TEST_HANG_FILE": str(hang), "FER_MAX_BATCH": "1"}
    with running(environ, FAULTY) as server:
        waiting = [visit(head + HAPPY) for _ in range(50)]
        eventually(lambda: server.sample("fer_stage_seconds_count", stage="decode") == 50)
        for connection in waiting:
            connection.close()
        began = time.monotonic()
        eventually(
            lambda: server.sample("fer_requests_total", route="/predict", status="499") == 50
        )
        took = time.monotonic() - began
        assert server.sample("fer_abandoned_faces_total") >= 49  # one may be in the engine
        assert server.sample("fer_queue_faces") == 0
        hang.unlink()
        assert httpx.post(f"{server.url}/predict", content=HAPPY).status_code == 200
        assert server.stop() == 0
    row("50 clients vanish mid-wait", "nothing", "0 of others", took)


async def test_uploads_that_trickle(row: Row) -> None:
    slow = 200
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(HAPPY)
    with faulty("steady", FER_TIMEOUT_S="3", FER_DECODE_THREADS="1") as server:
        connections = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(slow)]

        async def trickle(writer: asyncio.StreamWriter) -> None:
            # Never silent, and not done before it is cut off.
            for byte in HAPPY[:-1]:
                await asyncio.sleep(0.1)
                writer.write(bytes((byte,)))

        async def refused(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
            writer.write(head)
            sending = asyncio.create_task(trickle(writer))
            try:
                return await reader.readline()  # the rest may be cut short: it still sends
            finally:
                sending.cancel()
                writer.close()

        began = time.monotonic()
        async with load(server, 8) as seen:
            answers = await asyncio.gather(*(refused(*pair) for pair in connections))
            await answered(seen, 20)
        took = time.monotonic() - began
        assert set(seen) == {"200"}, seen
        assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
        assert server.sample("fer_rejections_total", reason="upload_timeout") == slow
        assert server.stop() == 0
    row(f"{slow} uploads a byte at a time", f"their 408 after 3 s, {shown(seen)}", "0", took)


async def test_connections_that_send_nothing(row: Row) -> None:
    idle = 5000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = idle + 500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"the system allows {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    with faulty("steady", FER_HEADER_TIMEOUT_S="8") as server:
        before = server.sample("process_resident_memory_bytes")
        sockets = []
        try:
            for _ in range(idle):
                connection = socket.socket()
                connection.setblocking(False)
                connection.connect_ex(("127.0.0.1", server.port))
                sockets.append(connection)
            eventually(lambda: server.sample("fer_connections") > 0.99 * idle)
            held = server.sample("process_resident_memory_bytes") - before
            began = time.monotonic()
            async with load(server, 8) as seen:
                await answered(seen, 200)
            slowest = (time.monotonic() - began) / 25
            assert set(seen) == {"200"}, seen
            took = eventually(lambda: server.sample("fer_connections") < 20)
            dropped = server.sample("fer_connections_dropped_total", reason="header_timeout")
            assert dropped >= 0.99 * idle
            assert held < 200 << 20
        finally:
            for connection in sockets:
                connection.close()
        assert server.stop() == 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    row(
        f"{idle} connections that send nothing ({held / 2**20:.0f} MiB)",
        f"{shown(seen)}, {1e3 * slowest:.0f} ms each",
        "0",
        took,
    )


def flood(port: int, connections: int, head: bytes, rest: bytes) -> None:
    """Send as fast as the server reads, and read what it answers; in a process of its own."""

    async def one() -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            reading = asyncio.create_task(reader.read(-1))
            writer.write(head)
            with contextlib.suppress(ConnectionError):
                while not reading.done():
                    writer.write(rest)
                    await writer.drain()
            writer.transport.abort()

    async def all_of_them() -> None:
        await asyncio.gather(*(one() for _ in range(connections)))

    asyncio.run(all_of_them())


CHUNKED = b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
FLOODS = {
    "pipelines": (b"", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 9000),
    "chunks of a byte": (CHUNKED, b"1\r\nx\r\n" * 40_000),
    "trailers": (CHUNKED + b"0\r\n", b"a:\r\n" * 60_000),
    "an extension": (CHUNKED + b"1;", b"a" * (1 << 18)),
    "a header": (b"GET / HTTP/1.1\r\na: ", b"a" * (1 << 18)),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_connections_that_never_stop_sending(row: Row, kind: str) -> None:
    floods, timeout_s = 100, 10.0
    with faulty("steady", FER_TIMEOUT_S=str(timeout_s)) as server:
        before = server.sample("process_resident_memory_bytes")
        spent = server.sample("process_cpu_seconds_total")
        flooding = multiprocessing.get_context("spawn").Process(
            target=flood, args=(server.port, floods, *FLOODS[kind])
        )
        flooding.start()
        try:
            # A flood that is refused at once connects again, so few of it are ever open together.
            eventually(
                lambda: (
                    server.sample("fer_connections") + server.sample("fer_rejections_total")
                    >= floods / 2
                )
            )
            times: list[float] = []
            answers: Counter[int] = Counter()
            with httpx.Client(base_url=server.url, timeout=60) as client:
                began = time.monotonic()
                while (asked := time.monotonic()) < began + 5:
                    answers[client.post("/predict", content=HAPPY).status_code] += 1
                    times.append(time.monotonic() - asked)
        finally:
            flooding.kill()
            flooding.join()
        grown = server.sample("process_resident_memory_bytes") - before
        spent = server.sample("process_cpu_seconds_total") - spent
        assert max(times) < timeout_s
        assert set(answers) == {200}
        assert grown < 200 << 20
        assert server.stop() == 0
    what = f"{floods} connections that send {kind} ({spent:.1f} CPU s, {grown / 2**20:+.0f} MiB)"
    row(what, f"{answers[200]}x 200, {max(times):.2f} s at most", "0", 0.0)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_log_on_a_full_disk(row: Row, checkpoint: Path, workers: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = settings(checkpoint) | {"FER_WORKERS": str(workers), "FER_LOG_LEVEL": "debug"}
    environ |= {"FER_HOST": "127.0.0.1", "FER_PORT": str(port), "FER_DEVICE": "cpu"}
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [sys.executable, "-m", "service"],
            cwd=REPOSITORY,
            env=os.environ | environ,
            stderr=full,
        )
    try:
        url = f"http://127.0.0.1:{port}"

        def up() -> bool:
            try:
                return httpx.get(f"{url}/health/ready").status_code == 200
            except httpx.TransportError:
                return False

        eventually(up)
        statuses = Counter(
            httpx.post(f"{url}/predict", content=HAPPY).status_code for _ in range(50)
        )
        assert statuses == {200: 50}
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    row(f"disk full for the log, {workers} workers", "50x 200", "0 (log lines alone)", 0.0)


def test_no_room_for_metrics(row: Row, checkpoint: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=REPOSITORY,
        env=os.environ | settings(checkpoint) | {"FER_PORT": "0", "FER_HOST": "127.0.0.1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 2
    assert "attention-fer: no room for metrics in /" in only_line(done.stderr)
    row("no room for metrics at start", "nothing listens; one line, exit 2", "0", 0.0)


async def test_the_clock_set_back(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(timeout_s=5.0) as (client, app):
        assert (await client.post("/predict", content=HAPPY)).status_code == 200
        for leap in (-86_400.0, 86_400.0):
            now = time.time() + leap
            monkeypatch.setattr(time, "time", lambda now=now: now)
            response = await client.post("/predict", content=HAPPY)
            assert response.status_code == 200
            assert response.json()["timing"]["total_ms"] < 5000
            assert (await client.get("/health/ready")).status_code == 200
            assert (await client.get("/metrics")).status_code == 200
        seconds = app.state.metrics.registry.get_sample_value(
            "fer_request_seconds_sum", {"route": "/predict", "kind": "prediction"}
        )
        assert 0 < seconds < 5
    row("clock set back and forward by a day", "200", "0", 0.0)


@pytest.mark.parametrize("fault", ["truncated", "of another version", "not one at all"])
def test_a_checkpoint_that_cannot_be_used(
    row: Row, checkpoint: Path, tmp_path: Path, fault: str
) -> None:
    data = checkpoint.read_bytes()
    spoilt = {
        "truncated": data[: len(data) // 2],
        "of another version": _with_version(data),
        "not one at all": b"PK\x03\x04" + bytes(1000),
    }[fault]
    path = tmp_path / "spoilt.safetensors"
    path.write_bytes(spoilt)
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=REPOSITORY,
        env=os.environ | {"FER_CHECKPOINT": str(path), "FER_PORT": "0", "FER_HOST": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 2
    assert only_line(done.stderr).startswith(f"attention-fer: {path}: ")
    row(f"checkpoint {fault} at start", "nothing listens; one line, exit 2", "0", 0.0)


def _with_version(data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    metadata = header["__metadata__"]
    (key,) = metadata
    metadata[key] = json.dumps(json.loads(metadata[key]) | {"format": 999})
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def test_a_checkpoint_swapped_under_a_running_service(row: Row, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "served.safetensors")
    sound = path.read_bytes()
    with running(settings(path), ready=ALL_READY) as server:
        path.write_bytes(sound[:100])  # in place: nothing may still be mapped from it
        assert httpx.post(f"{server.url}/predict", content=HAPPY).status_code == 200
        os.kill(workers_of(server)[1], signal.SIGKILL)
        server.wait_for(r"worker 1 ended with 2; starts again in 1 s")
        statuses = Counter(
            httpx.post(f"{server.url}/predict", content=HAPPY).status_code for _ in range(50)
        )
        assert statuses == {200: 50}  # by the worker that is left
        assert ready(server)
        assert not all_work(server)
        path.write_bytes(sound)
        took = eventually(lambda: all_work(server))
        assert server.stop() == 0
    row("checkpoint truncated while serving, and a worker killed", "50x 200", "0", took)
