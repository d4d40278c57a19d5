"""The transport that uvicorn is given: closing it loses no answer, reading can be held.

To close a socket while its client still sends resets the connection, and the client may never see
the answer that was written. So the socket's writing side is closed first, and what still comes is
read and dropped, for a bounded time and amount, as nginx does it.
"""

import asyncio
import fcntl
import termios
from array import array
from collections.abc import Callable
from typing import Any

LINGER_S = 30.0
"""How long a client may go on sending after its answer, before it is cut off."""
MAX_LINGER_BYTES = 64 << 20
"""How much."""


class LingeringTransport(asyncio.Transport):
    """A transport whose `close` waits until the client has stopped sending.

    On the event loop alone.

    Attributes:
        lingering: It was closed, and still reads.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        is_receiving: Callable[[], bool],
    ) -> None:
        """Surround `transport`.

        Args:
            transport: The event loop's.
            loop: That loop.
            is_receiving: Tells whether the client may still be sending.
        """
        super().__init__()
        self._transport, self._loop = transport, loop
        self._is_receiving = is_receiving
        self._timer: asyncio.TimerHandle | None = None
        self._may_drop_bytes = MAX_LINGER_BYTES
        self._held = self._paused = False
        self._unsent: list[bytes] = []  # of this turn of the event loop
        self.lingering = False

    def close(self) -> None:
        """Send what was written; end the connection, at once or when the client stops sending."""
        if self.is_closing():
            return
        self._send()
        if not self._is_receiving():
            self._transport.close()
            return
        self.lingering = True
        self._transport.write_eof()
        self._transport.resume_reading()
        self._timer = self._loop.call_later(LINGER_S, self._transport.abort)

    def drop(self, data: bytes) -> None:
        """Count what came while lingering; too much of it ends the connection."""
        self._may_drop_bytes -= len(data)
        if self._may_drop_bytes < 0:
            self._transport.abort()

    def hurry(self, seconds: float) -> None:
        """Linger no longer than that."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._loop.call_later(seconds, self._transport.abort)

    def lost(self) -> None:
        """Let go of the timer: the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def has_unread(self) -> bool:
        """Tell whether bytes have arrived that nobody has read."""
        if self._transport.is_closing():
            return False
        unread = array("i", [0])
        socket = self._transport.get_extra_info("socket")
        fcntl.ioctl(socket.fileno(), termios.FIONREAD, unread)
        return unread[0] > 0

    def hold(self, held: bool) -> None:
        """Read nothing, whoever resumes reading, until this is called with False.

        Args:
            held: Whether to.
        """
        if held != self._held:
            self._held = held
            self._read_or_not()

    def pause_reading(self) -> None:
        """Stop reading."""
        self._paused = True
        self._read_or_not()

    def resume_reading(self) -> None:
        """Read on, unless reading is held."""
        self._paused = False
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self.is_closing():
            return
        if self._held or self._paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def is_closing(self) -> bool:
        """Tell whether it was closed, even if it still lingers."""
        return self.lingering or self._transport.is_closing()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    def write(self, data: Any) -> None:
        """Send bytes; after `close` none.

        What is written in one turn of the event loop is sent together: an answer's head and body
        cost one system call, and wake the client once.
        """
        if self.lingering:
            return
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(data)

    def _send(self) -> None:
        content = b"".join(self._unsent)
        self._unsent.clear()
        if content and not self._transport.is_closing():
            self._transport.write(content)

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""
        return sum(map(len, self._unsent)) + self._transport.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the event loop's transport knows of the socket."""
        return self._transport.get_extra_info(name, default)
