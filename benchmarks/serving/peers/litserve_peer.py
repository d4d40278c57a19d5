"""LitServe: its LitAPI with batching, and an API server for each worker."""

from typing import Any

import litserve as ls
from fastapi import Request

from benchmarks.serving.peers.model import DEVICE, MAX_BATCH, PORT, WORKERS, Found, open_model


class Recognise(ls.LitAPI):
    """Finds faces and classifies them in the worker, as its batching has it."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - its interface
        """Load in the worker process."""
        self.model = open_model()

    def decode_request(self, request: Request) -> Found:
        """Take the picture out of the form, which is what its `Request` has become by then."""
        return self.model.find(request["image"].file.read())

    def batch(self, inputs: list[Found]) -> list[Found]:
        """Leave the pictures apart: they have any number of faces."""
        return inputs

    def predict(self, pictures: list[Found]) -> list[dict[str, Any]]:
        """Classify a batch."""
        return self.model.answer(pictures)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return a body for each request."""
        return output


if __name__ == "__main__":
    server = ls.LitServer(
        Recognise(max_batch_size=MAX_BATCH, batch_timeout=0.01),
        accelerator=DEVICE.type,
        devices=1,
        workers_per_device=WORKERS,
    )
    server.run(
        host="127.0.0.1",
        port=PORT,
        num_api_servers=WORKERS,
        generate_client_file=False,
        access_log=False,
    )
