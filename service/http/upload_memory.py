"""How many bytes all uploads together may hold, so that many large ones cannot fill the host.

Not its duty: holding them, or the limits of any one request (`service.http.uploads`).
"""

from types import TracebackType

from service.errors import QueueFull


class UploadMemory:
    """Bounds the bytes that all uploads hold together; used on the event loop alone."""

    def __init__(self, max_bytes: int) -> None:
        """Allow `max_bytes` at once."""
        self.max_bytes = max_bytes
        self.held_bytes = 0

    def reservation(self) -> "MemoryReservation":
        """Return one request's share, empty; a context manager that gives it back at the end."""
        return MemoryReservation(self)


class MemoryReservation:
    """What one request holds of an `UploadMemory`."""

    def __init__(self, memory: UploadMemory) -> None:
        """Hold nothing yet."""
        self._memory = memory
        self._held_bytes = 0

    def take(self, size: int) -> None:
        """Hold `size` bytes more.

        Raises:
            QueueFull: All uploads together would hold more than they may.
        """
        if self._memory.held_bytes + size > self._memory.max_bytes:
            raise QueueFull("Too many uploads are under way; try again shortly.", 1.0)
        self._memory.held_bytes += size
        self._held_bytes += size

    def __enter__(self) -> "MemoryReservation":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._memory.held_bytes -= self._held_bytes
        self._held_bytes = 0
