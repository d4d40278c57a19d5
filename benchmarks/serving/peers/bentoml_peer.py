"""BentoML: a batchable API of a service, run by `bentoml serve`."""

import os
import sys
from pathlib import Path
from typing import Any

import bentoml

from benchmarks.serving.peers.model import MAX_BATCH, PORT, WORKERS, open_model


@bentoml.service(workers=WORKERS)
class Recognise:
    """Batches by itself; a form's file comes as a path, which is the kind that its lists take."""

    def __init__(self) -> None:
        self.model = open_model()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=1000)
    def predict(self, images: list[Path]) -> list[dict[str, Any]]:
        """Answer a batch; a request brings a list of one."""
        return self.model.answer([self.model.find(path.read_bytes()) for path in images])


if __name__ == "__main__":
    service = "benchmarks.serving.peers.bentoml_peer:Recognise"
    place = ["--host", "127.0.0.1", "--port", str(PORT)]
    # By the module: the command's own file knows where its environment was made, and not this one.
    command = [sys.executable, "-m", "bentoml", "serve", service, *place]
    os.execv(sys.executable, command)
