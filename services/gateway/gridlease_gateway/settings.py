"""Settings of the gateway, read once from ``GRIDLEASE_*`` variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gridlease_kernel.faults import Invalid
from gridlease_mesh import settings as reader


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field is the variable GRIDLEASE_<NAME>; what has no default must be set."""

    nats_url: str
    postgres_dsn: str
    postgres_owner_dsn: str = ""  # for migrations at start; empty = postgres_dsn
    nats_creds: Path | None = None
    subject_prefix: str = "gl"
    ready_file: Path | None = None
    log_level: str = "INFO"
    gateway_listen: str = "127.0.0.1:7470"
    gateway_reuse_port: bool = False  # several gateways on one port, balanced by the kernel
    gateway_tls_cert: Path | None = None  # PEM; with gateway_tls_key: serve TLS
    gateway_tls_key: Path | None = None
    client_file: Path | None = None  # where the first start writes its keys, once, mode 0600
    bundles: Path = Path(".state/bundles")
    gateway_patience_ms: int = 20_000  # how long a call waits for a room that restarts
    gateway_rate_per_s: int = 500  # calls of one key, in the long run
    gateway_rate_burst: int = 1_000
    gateway_max_streams: int = 200  # of one key at once
    gateway_max_calls: int = 2_000  # of everybody at once
    gateway_call_ms: int = 30_000  # deadline of a call that brings none
    gateway_stream_ms: int = 86_400_000  # longest stream; clients come back by themselves
    gateway_webhook_local: bool = False  # tests only: webhooks by http:// and to this host
    first_credit_nano: int = 100_000_000_000  # prepaid for the first tenant; 0 = none

    @property
    def owner_dsn(self) -> str:
        return self.postgres_owner_dsn or self.postgres_dsn

    def address(self) -> tuple[str, int]:
        """Host and port to listen on.

        Raises:
            Invalid: SETTING_MALFORMED.
        """
        host, _, port = self.gateway_listen.rpartition(":")
        if not host or not port.isdigit() or int(port) > 65_535:
            raise Invalid(
                f"GRIDLEASE_GATEWAY_LISTEN={self.gateway_listen!r} is not host:port.",
                reason="SETTING_MALFORMED",
                field="GRIDLEASE_GATEWAY_LISTEN",
                remedy="Write it as 127.0.0.1:7470, or 0.0.0.0:7470 for every interface.",
            )
        return host.strip("[]"), int(port)


def load(environ: Mapping[str, str]) -> Settings:
    """The settings in ``environ``.

    Raises:
        Invalid: a variable is missing or malformed.
    """
    return reader.read(Settings, environ)
