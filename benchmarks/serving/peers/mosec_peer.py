"""MOSEC: a stage that finds faces, and one that classifies them in batches.

Crops need no first stage: they are decoded in `deserialize`.
"""

import sys
from typing import Any

from mosec import Server, ValidationError, Worker

from benchmarks.serving.peers.model import (
    ENGINE,
    MAX_BATCH,
    PORT,
    SEARCH,
    WORKERS,
    Found,
    open_model,
)
from service.errors import ServiceError
from service.pictures.search import NO_SEARCH

LINGER_MS = 10  # the default of its documentation's examples


class Stage(Worker):
    """What every stage has."""

    engine = ENGINE

    def __init__(self) -> None:
        super().__init__()
        self.model = open_model(self.engine)

    def deserialize(self, data: bytes) -> Found:
        """Decode a request's body and find its faces; the first stage is asked to."""
        try:
            return self.model.find(picture_in(data))
        except ServiceError as error:
            raise ValidationError(str(error)) from error


class Find(Stage):
    """The first stage of photographs; it classifies nothing."""

    engine = "nothing"

    def forward(self, data: Found) -> Found:
        """Pass on what `deserialize` found."""
        return data


class Classify(Stage):
    """The last stage, and of crops the only one."""

    def forward(self, data: list[Found]) -> list[dict[str, Any]]:
        """Classify a batch."""
        return self.model.answer(data)


def picture_in(body: bytes) -> bytes:
    """Return a form's only part: MOSEC reads no forms, and hides the headers that tell of one."""
    if not body.startswith(b"--"):
        return body
    boundary = body[: body.index(b"\r\n")]
    return body[body.index(b"\r\n\r\n") + 4 : body.rindex(b"\r\n" + boundary)]


if __name__ == "__main__":
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(PORT), "--log-level", "warning"]
    server = Server()
    if SEARCH != NO_SEARCH:
        server.append_worker(Find, num=WORKERS)
    server.append_worker(
        Classify,
        num=WORKERS,
        max_batch_size=MAX_BATCH,
        max_wait_time=LINGER_MS,
        route="/predict",
    )
    server.run()
