"""What the operator asked for on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_PORT = 7070
GATEWAY_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Options:
    """One platform on one machine.

    ``metrics``: host:port of the first service's metrics, the others' follow; empty for none.
    """

    state: Path
    port: int = DEFAULT_PORT
    nats_url: str | None = None
    nats_creds: Path | None = None
    node_nats_url: str | None = None
    postgres_dsn: str | None = None
    fleet: int = 0
    agent: bool = True
    metrics: str = ""

    @property
    def endpoint(self) -> str:
        """Where the gateway's gRPC door is."""
        return f"{GATEWAY_HOST}:{self.port}"
