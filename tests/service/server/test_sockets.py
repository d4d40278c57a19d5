"""Tests of `service.server.sockets`: who gets in, and who does not any more."""

import select
import socket
import sys

import pytest

from service.config import SettingsError
from service.server.sockets import bind, format_url, listen, stop_accepting


def connecting(port: int) -> socket.socket:
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(("127.0.0.1", port))
    return client


def connected(client: socket.socket, patience_s: float) -> bool:
    return bool(select.select([], [client], [], patience_s)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="Linux' packet filters")
def test_who_has_connected_is_still_accepted_and_nobody_else() -> None:
    with bind("127.0.0.1", 0) as listener:
        listen(listener)
        port = listener.getsockname()[1]
        early = connecting(port)
        assert connected(early, 5)
        early.sendall(b"hello")
        stop_accepting(listener)
        late = connecting(port)
        assert not connected(late, 0.1)
        accepted, _ = listener.accept()
        assert accepted.recv(10) == b"hello"
    for connection in (early, late, accepted):
        connection.close()


def test_a_port_is_had_once() -> None:
    with bind("127.0.0.1", 0) as listener:
        listen(listener)
        with pytest.raises(SettingsError, match="Address already in use"):
            bind("127.0.0.1", listener.getsockname()[1])


def test_who_binds_at_the_same_time_finds_out_as_it_listens() -> None:
    with bind("127.0.0.1", 0) as listener, bind(*listener.getsockname()) as rival:
        listen(listener)
        with pytest.raises(SettingsError, match="cannot listen any more"):
            listen(rival)


def test_urls() -> None:
    with bind("127.0.0.1", 0) as listener:
        assert format_url(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
    if socket.has_ipv6:
        with bind("::1", 0) as listener:
            assert format_url(listener).startswith("http://[::1]:")


def test_an_address_that_is_none() -> None:
    with pytest.raises(SettingsError, match=r"cannot listen on FER_HOST=256\.0\.0\.1 FER_PORT=1"):
        bind("256.0.0.1", 1)
