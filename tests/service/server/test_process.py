"""Tests of `python -m service`: the real server, its socket, its signals, its exit codes."""

import asyncio
import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

import service.app as service_app
from service.__main__ import main
from service.config import SHIPPED_CHECKPOINT, Settings, key_of
from service.engine.contract import Engine
from service.engine.loading import open_engine
from tests.service.made_pictures import encoded, flat
from tests.service.server_processes import Server, running
from training.model.checkpoint import save_checkpoint
from training.model.labels import FER2013_EMOTIONS
from training.model.manifest import Manifest, NetworkConfig
from training.model.network import AttentionFER

REQUESTS, BROKEN = 200, 20

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the shipped checkpoint, and one of random weights where none is shipped yet."""
    if SHIPPED_CHECKPOINT.is_file():
        return SHIPPED_CHECKPOINT
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    config = NetworkConfig(widths=(8, 16), depths=(1, 1))
    manifest = Manifest("random", "0", config, FER2013_EMOTIONS)
    save_checkpoint(path, AttentionFER(config), manifest, torch.float32)
    return path


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[Server]:
    with running({"FER_CHECKPOINT": str(checkpoint)}) as server:
        yield server
        assert server.stop() == 0


@pytest.fixture(scope="module")
def astronaut() -> bytes:
    """Return the face of a public-domain portrait, Eileen Collins smiling, as a JPEG."""
    data = pytest.importorskip("skimage.data")
    image = pytest.importorskip("PIL.Image").fromarray(data.astronaut())
    return encoded(image.crop((170, 20, 290, 165)), "JPEG", quality=95)


def form(image: bytes) -> dict[str, tuple[str, bytes, str]]:
    return {"image": ("face.jpg", image, "image/jpeg")}


@pytest.mark.skipif(not SHIPPED_CHECKPOINT.is_file(), reason="no checkpoint is shipped yet")
def test_a_smile_is_happiness(server: Server, astronaut: bytes) -> None:
    answer = httpx.post(f"{server.url}/predict", files=form(astronaut)).json()
    (face,) = answer["faces"]
    assert face["emotion"] == "happiness"
    assert face["confidence"] > 0.5
    assert answer["image"] == {"width": 120, "height": 145}


def test_headers_tell_nothing_about_the_server(server: Server) -> None:
    response = httpx.get(f"{server.url}/health/ready")
    assert response.status_code == 200
    assert "server" not in response.headers


async def test_many_at_once_of_which_some_are_broken(server: Server, astronaut: bytes) -> None:
    broken = [b"not a picture", astronaut[:500], b"", flat(9)[:40]]
    limits = httpx.Limits(max_connections=REQUESTS)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:

        async def post(number: int) -> httpx.Response:
            bad = number % (REQUESTS // BROKEN) == 0
            return await client.post(
                "/predict", files=form(broken[number % 4] if bad else astronaut)
            )

        before = await batches(client)
        (expected,) = (await post(1)).json()["faces"]
        responses = await asyncio.gather(*map(post, range(REQUESTS)))
        after = await batches(client)
    right = [r.json()["faces"][0] for r in responses if r.status_code == 200]
    wrong = [r for r in responses if r.status_code != 200]
    assert (len(right), len(wrong)) == (REQUESTS - BROKEN, BROKEN)
    assert {face["emotion"] for face in right} == {expected["emotion"]}
    # Sums in another order, in batches of another size.
    assert max(abs(f["confidence"] - expected["confidence"]) for f in right) < 1e-4
    assert {r.status_code for r in wrong} == {400}
    assert {r.json()["code"] for r in wrong} <= {"bad_image", "no_image"}
    faces, count = after[0] - before[0], after[1] - before[1]
    assert faces == REQUESTS - BROKEN + 1
    assert count < faces, "nothing was batched"


async def batches(client: httpx.AsyncClient) -> tuple[float, float]:
    """Return how many faces went to the network so far, and in how many batches."""
    families = text_string_to_metric_families((await client.get("/metrics")).text)
    samples = {s.name: s.value for f in families if f.name == "fer_batch_faces" for s in f.samples}
    return samples["fer_batch_faces_sum"], samples["fer_batch_faces_count"]


def test_nothing_after_the_limit_is_read(server: Server) -> None:
    size = 1 << 40
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\n"
        connection.sendall(f"{head}content-length: {size}\r\n\r\n".encode())
        answer = _read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer
    assert b"image_too_large" in answer


def test_sigterm_answers_what_was_accepted(checkpoint: Path, astronaut: bytes) -> None:
    with running({"FER_CHECKPOINT": str(checkpoint)}) as server:
        connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(16)]
        for connection in connections:
            head = "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/jpeg\r\n"
            head += f"expect: 100-continue\r\ncontent-length: {len(astronaut)}\r\n\r\n"
            connection.sendall(head.encode())
        for connection in connections:  # it says so once a handler waits for the body
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        server.process.send_signal(signal.SIGTERM)
        for connection in connections:
            connection.sendall(astronaut)
        for connection in connections:
            with connection:
                assert _read_to_end(connection).startswith(b"HTTP/1.1 200 ")
        while server.process.poll() is None:  # nor does it mind to be told again and again
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.process.send_signal(signal.SIGTERM)
                server.process.wait(0.01)
        assert server.stop() == 0
        assert "shutting down: accepted requests are answered" in server.log
        assert "Traceback" not in server.log


def _read_to_end(connection: socket.socket) -> bytes:
    connection.settimeout(30)
    pieces = []
    while piece := connection.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


# What cannot start says so in one line, and exits with 2.


@pytest.fixture
def signals() -> Iterator[None]:
    """Give the signals back that `main` takes."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **environ: str
) -> str:
    for key in Settings.__dataclass_fields__:
        monkeypatch.delenv(key_of(key), raising=False)
    for key, value in ({"FER_WORKERS": "1"} | environ).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(sys, "argv", ["service"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("attention-fer: ")
    assert err.count("\n") == 1, err
    return err


@pytest.mark.usefixtures("signals")
class TestRefusals:
    def test_a_wrong_setting(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert "FER_PORT is 'x', expected" in refused(monkeypatch, capsys, FER_PORT="x")

    def test_no_checkpoint(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
    ) -> None:
        path = tmp_path / "none.safetensors"
        error = refused(monkeypatch, capsys, FER_CHECKPOINT=str(path), FER_PORT="0")
        assert f"{path}: no such file" in error

    def test_a_prior_that_the_checkpoint_cannot_have(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        random_checkpoint: Path,
    ) -> None:
        settings = {"FER_CHECKPOINT": str(random_checkpoint), "FER_PORT": "0", "FER_DEVICE": "cpu"}
        error = refused(monkeypatch, capsys, **settings, FER_PRIOR="uniform")
        assert "FER_PRIOR is 'uniform', but attention-fer-test 0 does not state" in error

    def test_a_missing_face_detector(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
    ) -> None:
        path = tmp_path / "none.safetensors"
        error = refused(monkeypatch, capsys, FER_DETECTOR=str(path), FER_PORT="0")
        assert f"{path}: No such file" in error
        assert "fetches it; FER_DETECTOR=none serves without finding faces" in error

    def test_a_port_in_use(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            error = refused(monkeypatch, capsys, FER_HOST="127.0.0.1", FER_PORT=str(port))
        assert f"cannot listen on FER_HOST=127.0.0.1 FER_PORT={port}: Address already" in error

    def test_a_port_taken_while_loading(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        random_checkpoint: Path,
    ) -> None:
        rivals: list[socket.socket] = []

        def open_late(settings: Settings) -> Engine:
            rival = socket.socket()
            rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            rival.bind(("127.0.0.1", settings.port))
            rival.listen()
            rivals.append(rival)
            return open_engine(settings)

        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        monkeypatch.setattr(service_app, "open_engine", open_late)
        settings = {"FER_HOST": "127.0.0.1", "FER_PORT": str(port), "FER_DEVICE": "cpu"}
        settings["FER_CHECKPOINT"] = str(random_checkpoint)
        error = refused(monkeypatch, capsys, **settings)
        rivals[0].close()
        assert "cannot listen any more: Address already in use" in error

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
    def test_no_cuda(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        random_checkpoint: Path,
    ) -> None:
        error = refused(
            monkeypatch,
            capsys,
            FER_DEVICE="cuda",
            FER_CHECKPOINT=str(random_checkpoint),
            FER_PORT="0",
        )
        assert "CUDA" in error

    def test_help_lists_every_setting(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["service", "--help"])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 0
        text = capsys.readouterr().out
        assert all(key_of(name) in text for name in Settings.__dataclass_fields__)
