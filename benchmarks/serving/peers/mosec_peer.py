"""MOSEC: one stage that decodes in `deserialize` and classifies batches in `forward`."""

import sys
from typing import Any

import numpy as np
from mosec import Server, ValidationError, Worker

from benchmarks.serving.peers.model import MAX_BATCH, PORT, WORKERS, open_model
from service.errors import ServiceError

LINGER_MS = 10  # the default of its documentation's examples


class Recognise(Worker):
    """The only stage."""

    def __init__(self) -> None:
        super().__init__()
        self.model = open_model()

    def deserialize(self, data: bytes) -> np.ndarray:
        """Decode a request's body."""
        try:
            return self.model.decode(picture_in(data))
        except ServiceError as error:
            raise ValidationError(str(error)) from error

    def forward(self, data: list[np.ndarray]) -> list[dict[str, Any]]:
        """Classify a batch."""
        return [self.model.answer(row) for row in self.model.infer(np.stack(data))]


def picture_in(body: bytes) -> bytes:
    """Return a form's only part: MOSEC reads no forms, and hides the headers that tell of one."""
    if not body.startswith(b"--"):
        return body
    boundary = body[: body.index(b"\r\n")]
    return body[body.index(b"\r\n\r\n") + 4 : body.rindex(b"\r\n" + boundary)]


if __name__ == "__main__":
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(PORT), "--log-level", "warning"]
    server = Server()
    server.append_worker(
        Recognise,
        num=WORKERS,
        max_batch_size=MAX_BATCH,
        max_wait_time=LINGER_MS,
        route="/predict",
    )
    server.run()
