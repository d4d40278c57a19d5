"""`python -m tests.service.faulty_server`: the real server around an engine with a fault.

`TEST_ENGINE` names the fault; `TEST_HANG_FILE` a file as long as which the engine hangs.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import service.pictures.finder
import service.pictures.pool
from service.app import serve
from service.config import Settings
from service.server.sockets import bind
from service.server.supervisor import exit_cleanly_on_signals
from service.telemetry.logs import set_up_logging
from tests.service.serving import BrokenEngine, FakeEngine


class SteadyEngine(FakeEngine):
    """Takes 10 ms a batch."""

    def infer(self, faces: np.ndarray) -> np.ndarray:
        time.sleep(0.01)
        return super().infer(faces)


class DeadEngine(FakeEngine):
    def infer(self, faces: np.ndarray) -> np.ndarray:
        raise RuntimeError("a secret of /the/engine")


class SmallEngine(FakeEngine):
    """Has memory for two faces at once."""

    def infer(self, faces: np.ndarray) -> np.ndarray:
        time.sleep(0.01)
        if len(faces) > 2:
            raise MemoryError("a secret of /the/engine")
        return super().infer(faces)


class HangingEngine(FakeEngine):
    def infer(self, faces: np.ndarray) -> np.ndarray:
        while Path(os.environ["TEST_HANG_FILE"]).exists():
            time.sleep(0.01)
        return super().infer(faces)


def stick() -> FakeEngine:
    """Have every picture keep its decoder for good, and that noticed within half a second."""
    vars(service.pictures.finder)["decode"] = lambda *_: threading.Event().wait()
    service.pictures.pool.STUCK_S = 0.5
    return FakeEngine()


ENGINES: dict[str, Callable[[], FakeEngine]] = {
    "steady": SteadyEngine,
    "broken": BrokenEngine,
    "dead": DeadEngine,
    "small": SmallEngine,
    "hanging": HangingEngine,
    "stuck": stick,
}


def main() -> None:
    exit_cleanly_on_signals()
    settings = Settings.from_environ(os.environ)
    set_up_logging(settings.log_level, settings.log_format)
    with bind(settings.host, settings.port) as listener:
        serve(settings, listener, ENGINES[os.environ["TEST_ENGINE"]]())


if __name__ == "__main__":
    main()
