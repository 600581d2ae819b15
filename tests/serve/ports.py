"""Sockets on ports that the system chooses."""

from __future__ import annotations

import socket


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def closed_port() -> int:
    """A port that nobody listens on."""
    with listening() as sock:
        return sock.getsockname()[1]
