"""The contract of an engine, for the queue and the service.

It does not import torch: workers in front of an engine process import this module.
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
Emotions = NDArray[np.int64]
"""int64[n], the index of an emotion in the manifest's order, for each face."""
Probabilities = NDArray[np.float32]
"""float32[n, classes], each row sums to 1, in the manifest's order of emotions."""
BatchSeconds = Mapping[int, float]
"""Time of a batch in seconds, by its number of faces; empty if not measured."""


class Engine(Protocol):
    """A checkpoint on a device; used in one thread, never on the event loop.

    An engine that accepts a batch while it computes another one also has `begin(faces)`, which
    returns a function that waits for the probabilities; at most two are open.
    """

    @property
    def device(self) -> str:
        """Its device, for metrics and logs: "cpu", "cuda:0"."""

    @property
    def manifest(self) -> Manifest:
        """The manifest of its checkpoint."""

    def infer(self, faces: Faces) -> Probabilities:
        """Classify faces; the returned array is not reused."""

    def explain(self, faces: Faces, emotions: Emotions) -> list[Explanation]:
        """Explain what speaks for an emotion of each face, one explanation per face."""

    def warm(self) -> BatchSeconds:
        """Prepare for the first batch; returns the measured time of batches, if known."""


@dataclass(frozen=True)
class EngineInfo:
    """The description of an engine.

    Attributes:
        manifest: Of its checkpoint.
        device: As torch calls it.
        gpu: The GPU's UUID, for the readings of its driver; empty on a CPU.
    """

    manifest: Manifest
    device: str
    gpu: str = ""


Infer = Callable[[Faces], Probabilities]
Finish = Callable[[], Probabilities]
Begin = Callable[[Faces], Finish]
Explain = Callable[[Faces, Emotions], list[Explanation]]
