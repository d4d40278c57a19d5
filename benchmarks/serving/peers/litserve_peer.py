"""LitServe: its LitAPI with batching, and an API server for each worker."""

from typing import Any

import litserve as ls
import numpy as np
from fastapi import Request

from benchmarks.serving.peers.model import DEVICE, MAX_BATCH, PORT, WORKERS, open_model


class Recognise(ls.LitAPI):
    """Decodes and classifies in the worker, as its batching has it."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - its interface
        """Load in the worker process."""
        self.model = open_model()

    def decode_request(self, request: Request) -> np.ndarray:
        """Take the picture out of the form, which is what its `Request` has become by then."""
        return self.model.decode(request["image"].file.read())

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """Join faces."""
        return np.stack(inputs)

    def predict(self, faces: np.ndarray) -> np.ndarray:
        """Classify a batch."""
        return self.model.infer(faces)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """Part rows."""
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        """Return the body."""
        return self.model.answer(output)


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
