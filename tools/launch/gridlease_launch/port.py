"""Ports of the loopback: is one free, which one is."""

from __future__ import annotations

import socket

from gridlease_kernel.faults import Precondition

from .options import GATEWAY_HOST


def check_free(port: int) -> None:
    """Make sure that the gateway can have its port.

    Raises:
        Precondition: PORT_TAKEN.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((GATEWAY_HOST, port))
        except OSError as error:
            raise Precondition(
                f"Port {port} on {GATEWAY_HOST} is taken by another program.",
                reason="PORT_TAKEN",
                field="--port",
                remedy="Stop that program, or choose another with --port.",
            ) from error


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((GATEWAY_HOST, 0))
        port: int = probe.getsockname()[1]
        return port
