"""What the queue and the service need of an engine, whatever it computes with.

Nothing here loads torch: workers in front of an engine process import it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.engine.explanation import Explanation
from training.model.manifest import Manifest

Faces = NDArray[np.uint8]
"""uint8[n, h, w], 0-255, grey, of the checkpoint's InputSpec."""
Probabilities = NDArray[np.float32]
"""float32[n, classes], each row sums to 1, in the manifest's order of emotions."""
BatchSeconds = Mapping[int, float]
"""What batches take, in seconds by their faces; empty where nobody measured."""


class Engine(Protocol):
    """A checkpoint on a device; used from one thread, never from the event loop.

    An engine that takes a batch while it computes another one also has `begin(faces)`, which
    returns a callable that waits for the probabilities; at most two are open.
    """

    @property
    def device(self) -> str:
        """What it runs on, for metrics and logs: "cpu", "cuda:0"."""

    @property
    def manifest(self) -> Manifest:
        """What its checkpoint says about itself."""

    def infer(self, faces: Faces) -> Probabilities:
        """Classify faces; the probabilities are the caller's to keep."""

    def explain(self, faces: Faces) -> list[Explanation]:
        """Say why `infer` answers as it does, a reason a face."""

    def warm(self) -> BatchSeconds:
        """Get ready, and return what batches take where that is known."""


@dataclass(frozen=True)
class EngineInfo:
    """What an engine says of itself.

    Attributes:
        manifest: What its checkpoint says about itself.
        device: What it runs on.
        gpu: The device's UUID, for its driver's figures; empty on a CPU.
    """

    manifest: Manifest
    device: str
    gpu: str = ""


Infer = Callable[[Faces], Probabilities]
Finish = Callable[[], Probabilities]
Begin = Callable[[Faces], Finish]
Explain = Callable[[Faces], list[Explanation]]
