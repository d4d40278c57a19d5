"""What answers faces, wherever its engine is.

Not its duty: being one (`service.inference.batcher`, `service.inference.remote_batcher`).
"""

from typing import Protocol

from service.inference.ticket import Faces, Inference


class Classifier(Protocol):
    """A queue before an engine, of this process or of another; used on one event loop."""

    @property
    def healthy(self) -> bool:
        """Whether faces are being answered."""

    async def submit(
        self, faces: Faces, deadline: float, explained: bool = False
    ) -> list[Inference]:
        """Have faces classified, as `service.inference.batcher.Batcher.submit` does."""

    async def drain(self, timeout_s: float) -> None:
        """Refuse new faces and finish the accepted ones, in so many seconds."""
