"""The listening socket, and the limit of open descriptors."""

import contextlib
import ctypes
import logging
import resource
import socket
import struct

from service.config import SettingsError

BACKLOG = 2048
_SO_ATTACH_FILTER = 26  # of Linux; Python does not name it
# Descriptors besides connections: libraries, metrics, the event loop.
_OTHER_DESCRIPTORS = 128

_log = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """Bind a port, without listening yet.

    Args:
        host: An address or a name.
        port: 0 chooses a free one.

    Returns:
        The bound socket.

    Raises:
        SettingsError: The address cannot be bound; names it.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise SettingsError(
            f"cannot listen on FER_HOST={host} FER_PORT={port}: {error.strerror}"
        ) from None
    return listener


def listen(listener: socket.socket) -> None:
    """Begin to listen.

    Raises:
        SettingsError: Another process listens on the port already.
    """
    # Not left to uvicorn: uvloop would only log the error.
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise SettingsError(f"cannot listen any more: {error.strerror}") from None


def stop_accepting(listener: socket.socket) -> None:
    """Refuse new connections, but keep those that wait to be accepted.

    Closing the socket at once would reset the waiting ones: under load a few each time, with their
    requests already sent. Does nothing where the system does not support it.

    Args:
        listener: Listening; to be closed once the waiting connections are accepted.
    """
    # A packet filter of one instruction, "return 0": it drops every SYN. The client sends it again
    # a second later, when the port is closed.
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HL", 1, ctypes.addressof(instruction))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def format_url(listener: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def allow_descriptors(max_connections: int) -> int:
    """Raise the limit of open descriptors for as many connections, as far as the system allows.

    Args:
        max_connections: How many are configured.

    Returns:
        How many are possible.
    """
    needed = max_connections + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= needed:
        if soft != resource.RLIM_INFINITY and soft < needed:
            resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        return max_connections
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    possible = max(1, hard - _OTHER_DESCRIPTORS)
    _log.warning("the system allows %d descriptors: at most %d connections", hard, possible)
    return possible
