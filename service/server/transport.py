"""The transport that uvicorn uses: it closes without losing the answer, and can pause reading.

Closing a socket while its client still sends resets the connection, and the client may lose the
answer that was written. Therefore only the writing side is closed at first. Further bytes are read
and discarded, for a limited time and up to a limited size, as nginx does (lingering close).
"""

import asyncio
import fcntl
import termios
from array import array
from collections.abc import Callable
from typing import Any

LINGER_S = 30.0
"""How long a client may continue to send after its answer, before the connection is aborted."""
MAX_LINGER_BYTES = 64 << 20
"""How many bytes it may send in that time."""


class LingeringTransport(asyncio.Transport):
    """A transport whose `close` waits until the client has stopped sending.

    Used on the event loop only.

    Attributes:
        lingering: It was closed, but still reads and discards.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        is_receiving: Callable[[], bool],
    ) -> None:
        """Wrap `transport`.

        Args:
            transport: The event loop's.
            loop: That loop.
            is_receiving: Returns whether the client may still be sending.
        """
        super().__init__()
        self._transport, self._loop = transport, loop
        self._is_receiving = is_receiving
        self._timer: asyncio.TimerHandle | None = None
        self._discardable_bytes = MAX_LINGER_BYTES
        self._held = self._paused = False
        self._unsent: list[bytes] = []  # of this turn of the event loop
        self.lingering = False

    def close(self) -> None:
        """Flush, then end the connection: at once, or when the client has stopped sending."""
        if self.is_closing():
            return
        self.flush()
        if not self._is_receiving():
            self._transport.close()
            return
        self.lingering = True
        self._transport.write_eof()
        self._transport.resume_reading()
        self._timer = self._loop.call_later(LINGER_S, self._transport.abort)

    def discard(self, data: bytes) -> None:
        """Count bytes received while lingering; too many of them end the connection."""
        self._discardable_bytes -= len(data)
        if self._discardable_bytes < 0:
            self._transport.abort()

    def limit_linger(self, seconds: float) -> None:
        """End the connection in at most so many seconds, if it lingers."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._loop.call_later(seconds, self._transport.abort)

    def cancel_timer(self) -> None:
        """Cancel the linger timer, because the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def has_unread(self) -> bool:
        """Return whether the socket holds received bytes that were not read."""
        if self._transport.is_closing():
            return False
        unread = array("i", [0])
        socket = self._transport.get_extra_info("socket")
        fcntl.ioctl(socket.fileno(), termios.FIONREAD, unread)
        return unread[0] > 0

    def hold(self, held: bool) -> None:
        """Pause reading for the protocol, independently of `pause_reading`, which uvicorn uses.

        Args:
            held: False ends the pause.
        """
        if held != self._held:
            self._held = held
            self._update_reading()

    def pause_reading(self) -> None:
        """Pause reading."""
        self._paused = True
        self._update_reading()

    def resume_reading(self) -> None:
        """Resume reading, unless `hold` pauses it."""
        self._paused = False
        self._update_reading()

    def _update_reading(self) -> None:
        if self.is_closing():
            return
        if self._held or self._paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def is_closing(self) -> bool:
        """Return whether it was closed, even if it still lingers."""
        return self.lingering or self._transport.is_closing()

    def abort(self) -> None:
        """End the connection at once, and discard unsent bytes."""
        self._transport.abort()

    def write(self, data: Any) -> None:
        """Send bytes; after `close` none.

        What is written in one turn of the event loop is sent together: an answer's head and body
        cost one system call, and wake the client once.
        """
        if self.lingering:
            return
        if not self._unsent:
            self._loop.call_soon(self.flush)
        self._unsent.append(data)

    def flush(self) -> None:
        """Send now what was written in this turn of the event loop."""
        content = b"".join(self._unsent)
        self._unsent.clear()
        if content and not self._transport.is_closing():
            self._transport.write(content)

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes that are not sent yet."""
        return sum(map(len, self._unsent)) + self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return information about the socket, as the event loop's transport does."""
        return self._transport.get_extra_info(name, default)
