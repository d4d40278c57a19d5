"""Clients that people use, against the protocol that serves them: what each gets to see."""

import asyncio
import http.client
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.http.v2.messages import MODEL
from tests.service.made_pictures import flat
from tests.service.server.test_connections import PATIENT, Listening, listening
from tests.waiting import until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize(
        "anyio_backend",
        [("asyncio", {"use_uvloop": True}), ("asyncio", {"use_uvloop": False})],
        ids=["uvloop", "asyncio"],
    ),
]

PICTURE = flat(130)
FORM = (
    b'--xyz\r\ncontent-disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n'
    + PICTURE
    + b"\r\n--xyz--\r\n"
)
LARGE = 30_000_000
KEY = "0123456789abcdef"


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


async def output_of(*command: str) -> str:
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_java_with_its_default_version(tmp_path: Path) -> None:
    java = program("java")
    program("javac")
    (tmp_path / "form").write_bytes(FORM)
    source = Path(__file__).with_name("Upload.java")
    async with listening(PATIENT) as server:
        url = f"http://127.0.0.1:{server.port}/predict"
        said = await output_of(java, str(source), url, str(tmp_path / "form"))
        assert said.splitlines() == ["200 HTTP_1_1"] * 3
        assert server.sample("fer_connections") <= 1


@pytest.mark.parametrize("option", ["--http2", "--http1.1", "--http1.0"])
async def test_curl(option: str, tmp_path: Path) -> None:
    (tmp_path / "face.jpg").write_bytes(PICTURE)
    async with listening(PATIENT) as server:
        url = f"http://127.0.0.1:{server.port}/predict"
        command = (program("curl"), "-sS", option, "-F", f"image=@{tmp_path / 'face.jpg'}")
        said = await output_of(*command, "-o", "/dev/null", "-w", "%{http_code}", url)
        assert said == "200"


def by_http_client(port: int, path: str, body: bytes, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", path, body, headers)
    with connection.getresponse() as response:
        response.read()
        return response.status


def by_requests(port: int, path: str, body: bytes, headers: dict[str, str]) -> int:
    requests = pytest.importorskip("requests")
    url = f"http://127.0.0.1:{port}{path}"
    return int(requests.post(url, data=body, headers=headers, timeout=30).status_code)


def by_httpx(port: int, path: str, body: bytes, headers: dict[str, str]) -> int:
    url = f"http://127.0.0.1:{port}{path}"
    return httpx.post(url, content=body, headers=headers, timeout=30).status_code


def by_httpx_in_chunks(port: int, path: str, body: bytes, headers: dict[str, str]) -> int:
    url = f"http://127.0.0.1:{port}{path}"
    pieces = (body[start : start + 65536] for start in range(0, len(body), 65536))
    return httpx.post(url, content=pieces, headers=headers, timeout=30).status_code


def by_socket(port: int, path: str, body: bytes, headers: dict[str, str]) -> int:
    """Send all of it, read to the end, and then close, as simple scripts do."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{lines}content-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        answer = b""
        while piece := connection.recv(1 << 16):
            answer += piece
    return int(answer.split()[1])


Client = Callable[[int, str, bytes, dict[str, str]], int]
CLIENTS = [by_http_client, by_requests, by_httpx, by_httpx_in_chunks, by_socket]
INFER = f"/v2/models/{MODEL}/infer"
EARLY = {
    "too large": ("/predict", {"content-type": "image/jpeg"}, 413),
    "too large for tensors": (
        f"/v2/models/{MODEL}/infer",
        {"content-type": "application/json"},
        413,
    ),
    "no key": ("/predict", {"content-type": "image/jpeg", "x-api-key": "no"}, 401),
    "nowhere": ("/nowhere", {}, 404),
    "another method": ("/health/live", {}, 405),
    "another type": ("/predict", {"content-type": "text/plain"}, 415),
    "too many headers": ("/predict", {f"x-{number}": "y" for number in range(101)}, 431),
    "malformed": ("/predict", {"host": "a b"}, 400),
}


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
async def test_an_upload_above_the_limit_hears_why(client: Client) -> None:
    async with listening(PATIENT) as server:
        for _ in range(3):
            headers = {"content-type": "image/jpeg"}
            status = await asyncio.to_thread(client, server.port, "/predict", bytes(LARGE), headers)
            assert status == 413
        await none_linger(server)


@pytest.mark.parametrize("case", EARLY)
async def test_every_early_answer_arrives(case: str) -> None:
    path, headers, status = EARLY[case]
    keys = (KEY,) if case == "no key" else ()
    async with listening(PATIENT, api_keys=keys) as server:
        found = await asyncio.to_thread(by_http_client, server.port, path, bytes(LARGE), headers)
        assert found == status
        await none_linger(server)


async def none_linger(server: Listening) -> None:
    """Wait until no connection is left: the client has closed its own."""
    await until(lambda: not server.state.connections)
