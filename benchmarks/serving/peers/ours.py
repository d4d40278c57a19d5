"""The service: `python -m service`; with an engine that does nothing where ENGINE says so."""

import os
import sys

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.peers.model import PORT, WORKERS
from service.engine.explanation import Explanation


class Nothing:
    """Stands where `service.engine.torch_engine.TorchEngine` does, and answers a constant."""

    device = "cpu"

    def __init__(self) -> None:
        from benchmarks.serving.peers.model import open_model
        from service.config import SHIPPED_CHECKPOINT
        from training.model.checkpoint import load_checkpoint

        self.manifest = load_checkpoint(SHIPPED_CHECKPOINT).manifest
        self.infer = open_model().infer

    def warm(self) -> dict[int, float]:
        """Nothing is cold, and nothing known."""
        return {}

    def explain(
        self,
        faces: NDArray[np.uint8],
        emotions: NDArray[np.int64],
    ) -> list[Explanation]:
        """Have no reasons: nobody asks for any here."""
        raise NotImplementedError(f"nothing explains {len(faces)} faces")


def main() -> None:
    settings = {
        "HOST": "127.0.0.1",
        "PORT": str(PORT),
        "WORKERS": str(WORKERS),
        "DEVICE": os.environ.get("DEVICE", "auto"),
    }
    environ = os.environ | {f"FER_{key}": value for key, value in settings.items()}
    if os.environ.get("ENGINE") != "nothing":
        os.execve(sys.executable, [sys.executable, "-m", "service"], environ)
    from service.app import serve
    from service.config import Settings
    from service.server.sockets import bind

    # In one process: what is asked of it is the CPU time of a request, which workers share out.
    ours = {key: value for key, value in environ.items() if key.startswith("FER_")}
    with bind("127.0.0.1", PORT) as listener:
        serve(Settings.from_environ(ours | {"FER_WORKERS": "1"}), listener, engine=Nothing())


if __name__ == "__main__":
    main()
