"""Ports that are free now."""

from __future__ import annotations

import socket


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port that nobody listened on a moment ago."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port
