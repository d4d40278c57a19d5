"""The application in process, with an engine whose answers are known beforehand."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.config import Settings
from service.engine.explanation import Explanation
from training.model.labels import FER2013_EMOTIONS
from training.model.manifest import Manifest, NetworkConfig

MANIFEST = Manifest("fake", "7", NetworkConfig(), FER2013_EMOTIONS)
STATED = replace(MANIFEST, prior=(0.1, 0.02, 0.04, 0.3, 0.14, 0.1, 0.3))
"""The same, with the prior of its training labels."""


class FakeEngine:
    """Names the emotion by a face's grey level: 0-36 is the first, 37-73 the second, and so on."""

    device = "fake"
    manifest = MANIFEST

    def __init__(self) -> None:
        self.warmed = False
        self.batches: list[int] = []
        self.explained: list[int] = []
        self.emotions: list[str] = []

    def warm(self) -> dict[int, float]:
        self.warmed = True
        return {}

    def infer(self, faces: np.ndarray) -> np.ndarray:
        self.batches.append(len(faces))
        classes = len(self.manifest.emotions)
        answers = np.full((len(faces), classes), 0.04, np.float32)
        answers[np.arange(len(faces)), faces.mean(axis=(1, 2)).astype(int) // 37] = 0.76
        return answers

    def explain(self, faces: np.ndarray, emotions: np.ndarray) -> list[Explanation]:
        """Say that nothing was straightened, and that all lies in the upper left corner."""
        self.explained.append(len(faces))
        self.emotions += [self.manifest.emotions[emotion] for emotion in emotions]
        theta, corner = np.eye(2, 3, dtype=np.float32), np.zeros((6, 6), np.float32)
        corner[0, 0] = 1.0
        return [Explanation(theta, face, corner, corner) for face in faces]


class GatedEngine(FakeEngine):
    """Answers only once `gate` is set; `entered` tells that a batch is inside."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.entered = threading.Event(), threading.Event()

    def infer(self, faces: np.ndarray) -> np.ndarray:
        self.entered.set()
        self.gate.wait()
        return super().infer(faces)


class BrokenEngine(FakeEngine):
    """Fails on dark faces, and on batches that hold one."""

    def infer(self, faces: np.ndarray) -> np.ndarray:
        if (faces.mean(axis=(1, 2)) < 14).any():
            raise RuntimeError("a secret of /the/engine")
        return super().infer(faces)


@asynccontextmanager
async def serving(
    engine: FakeEngine | None = None, **settings: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, FastAPI]]:
    """Run the application's lifespan and give a client of it.

    Every picture is a face, unless a `detector` is among the settings: loading one takes twice
    as long as all else.
    """
    app = create_app(Settings(**{"detector": None} | settings), engine or FakeEngine())
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client, app


class Listener(uvicorn.Server):
    """A server that says when it has begun to answer, or never will."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.settled.set()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            super().run(sockets)
        finally:
            self.settled.set()


@contextmanager
def listening(engine: FakeEngine | None = None, **settings: Any) -> Iterator[str]:
    """Serve the application on a real socket, from a thread; give its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        app = create_app(Settings(**{"detector": None} | settings), engine or FakeEngine())
        server = Listener(uvicorn.Config(app, log_config=None, ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        server.settled.wait()
        try:
            assert server.started, "the application did not start"
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@dataclass
class Exchange:
    """One request on the ASGI interface itself, for what no HTTP client can be made to do."""

    headers: Mapping[str, str]
    path: str = "/predict"
    incoming: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    sent: list[dict[str, Any]] = field(default_factory=list)
    received: int = 0

    def push(self, body: bytes, more: bool = False) -> None:
        self.incoming.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def leave(self) -> None:
        self.incoming.put_nowait({"type": "http.disconnect"})

    async def run(self, app: FastAPI) -> None:
        async def receive() -> dict[str, Any]:
            message = await self.incoming.get()
            self.received += len(message.get("body", b""))
            return message

        async def send(message: Any) -> None:
            self.sent.append(dict(message))

        raw = [(k.lower().encode(), v.encode()) for k, v in self.headers.items()]
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": self.path,
            "raw_path": self.path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": raw,
            "server": ("test", 80),
            "client": ("test", 1),
        }
        await app(scope, receive, send)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def answered_headers(self) -> dict[str, str]:
        return {k.decode(): v.decode() for k, v in self.sent[0]["headers"]}
