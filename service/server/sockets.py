"""The socket that the service listens on, and how many connections the system allows."""

import contextlib
import ctypes
import logging
import resource
import socket
import struct

from service.config import SettingsError

BACKLOG = 2048
_SO_ATTACH_FILTER = 26  # of Linux; Python does not name it
# What the process opens besides connections: libraries, metrics, the event loop's own.
_OTHER_DESCRIPTORS = 128

_log = logging.getLogger(__name__)


def bind(host: str, port: int) -> socket.socket:
    """Take a port, without listening yet.

    Args:
        host: An address or a name.
        port: 0 takes a free one.

    Returns:
        The socket, bound.

    Raises:
        SettingsError: It cannot be had; names the address.
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
    """Begin to queue connections.

    Raises:
        SettingsError: Another process was faster.
    """
    # Here and not by uvicorn: uvloop would only log it.
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise SettingsError(f"cannot listen any more: {error.strerror}") from None


def take_no_more(listener: socket.socket) -> None:
    """Let nobody connect any more, and keep those who have and wait to be accepted.

    To close at once would reset them: under load a few each time, with their requests sent. Where
    the system cannot do it, nothing happens.

    Args:
        listener: Listening; to be closed once those who wait were accepted.
    """
    # A packet filter of one instruction, "return 0": every packet that asks to connect is dropped,
    # and sent again a second later, by when the port is closed.
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HL", 1, ctypes.addressof(instruction))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def url_of(listener: socket.socket) -> str:
    """Return where a bound socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def allow_descriptors(max_connections: int) -> int:
    """Have the system let this process open as many connections as that, if it does.

    Args:
        max_connections: How many are wanted.

    Returns:
        How many there can be.
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
