"""Bounds the memory of all uploads together, so that many large ones cannot exhaust the host."""

from types import TracebackType

from service.errors import QueueFull


class UploadMemory:
    """Bounds the bytes of all uploads together; used on the event loop only."""

    def __init__(self, max_bytes: int) -> None:
        """Allow `max_bytes` at once."""
        self.max_bytes = max_bytes
        self.held_bytes = 0

    def reservation(self) -> "MemoryReservation":
        """Return an empty reservation for one request; a context manager that releases it."""
        return MemoryReservation(self)


class MemoryReservation:
    """The memory that one request has reserved."""

    def __init__(self, memory: UploadMemory) -> None:
        """Create an empty reservation."""
        self._memory = memory
        self._held_bytes = 0

    def take(self, size: int) -> None:
        """Reserve `size` more bytes.

        Raises:
            QueueFull: The memory for uploads is full.
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
