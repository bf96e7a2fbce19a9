"""The suite cannot reach other machines."""

from __future__ import annotations

import socket

import pytest


def test_other_machines_are_out_of_reach() -> None:
    with socket.socket() as one, pytest.raises(OSError, match="without network"):
        one.connect(("192.0.2.1", 80))
    with pytest.raises(OSError, match="without network"):
        socket.getaddrinfo("example.org", 80)


def test_loopback_works() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as one:
        one.sendall(b"night")
        peer, _ = server.accept()
        with peer:
            assert peer.recv(5) == b"night"
