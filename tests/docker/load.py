"""Requests that know whether they were accepted: they wait for `100 Continue` before the body.

The service sends it when it begins to read a body. From then on it owes an answer; a connection
that ends before was never a request to it.
"""

import enum
import json
import socket
import threading
from collections import Counter
from dataclasses import dataclass, field


class Fate(enum.Enum):
    ANSWERED = "answered with 200"
    REFUSED = "refused in words"
    NOT_ACCEPTED = "not accepted"
    LOST = "accepted and lost"


@dataclass
class Request:
    """One picture on a connection of its own."""

    port: int
    picture: bytes
    _socket: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self._socket = socket.socket()
        self._socket.settimeout(60)

    def open(self) -> bool:
        """Send the head, and return whether the service asks for the body."""
        head = (
            "POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\n"
            f"Content-Length: {len(self.picture)}\r\nExpect: 100-continue\r\n"
            "Connection: close\r\n\r\n"
        )
        try:
            self._socket.connect(("127.0.0.1", self.port))
            self._socket.sendall(head.encode())
            interim = b""
            while not interim.endswith(b"\r\n\r\n"):
                piece = self._socket.recv(1)
                if not piece:
                    break
                interim += piece
        except ConnectionError:
            interim = b""
        if interim.startswith(b"HTTP/1.1 100 "):
            return True
        self._socket.close()
        return False

    def finish(self) -> Fate:
        """Send the body, read the answer to its end, and tell what became of it."""
        answer = b""
        with self._socket:
            try:
                self._socket.sendall(self.picture)
                while piece := self._socket.recv(1 << 16):
                    answer += piece
            except ConnectionError:
                return Fate.LOST
        head, _, body = answer.partition(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 200 ") and "faces" in json.loads(body):
            return Fate.ANSWERED
        if head.startswith(b"HTTP/1.1 503 ") and "code" in json.loads(body):
            return Fate.REFUSED
        return Fate.LOST


class Load:
    """Clients that send one request after the other, until one is not accepted any more."""

    def __init__(self, port: int, picture: bytes, clients: int) -> None:
        self._port = port
        self._picture = picture
        self._fates: Counter[Fate] = Counter()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send) for _ in range(clients)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> Counter[Fate]:
        for thread in self._threads:
            thread.join()
        return self._fates

    @property
    def answered(self) -> int:
        return self._fates[Fate.ANSWERED]

    def _send(self) -> None:
        fate = None
        while fate is not Fate.NOT_ACCEPTED:
            request = Request(self._port, self._picture)
            fate = request.finish() if request.open() else Fate.NOT_ACCEPTED
            with self._lock:
                self._fates[fate] += 1
