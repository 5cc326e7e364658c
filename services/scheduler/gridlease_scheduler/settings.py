"""Settings, from ``GRIDLEASE_*`` variables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .domain.lease import Terms


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field is the variable of its name; spans in milliseconds.

    ``postgres_owner_dsn`` migrates at start (default: ``postgres_dsn``).
    ``node_nats_url`` is told to nodes that enrol (default: ``nats_url``).
    ``nats_replicas``: copies of the event feed; 3 in a cluster of three.
    ``nats_account_seed`` is the broker's ``keys/signing.seed``; without it no credential is signed.
    """

    nats_url: str
    postgres_dsn: str
    postgres_owner_dsn: str = ""
    nats_creds: Path | None = None
    nats_account_seed: Path | None = None
    node_nats_url: str = ""
    subject_prefix: str = "gl"
    nats_replicas: int = 1
    ready_file: Path | None = None
    log_level: str = "INFO"
    grant_ms: int = 120_000
    start_by_ms: int = 600_000
    slow_tick_ms: int = 10_000
    disconnected_after_ms: int = 30_000
    lost_after_ms: int = 120_000
    kill_margin_ms: int = 2_000
    clock_step_margin_ms: int = 3_000
    drift_ppm: int = 1_000
    notice_ms: int = 30_000
    max_attempts: int = 3
    node_credential_ttl_ms: int = 24 * 3_600_000
    scheduler_connections: int = 12

    @property
    def owner_dsn(self) -> str:
        """Who may create schemas and roles."""
        return self.postgres_owner_dsn or self.postgres_dsn

    def terms(self) -> Terms:
        """The lease protocol's spans."""
        return Terms(
            grant_ms=self.grant_ms,
            drift_ppm=self.drift_ppm,
            kill_ms=self.kill_margin_ms,
            step_ms=self.clock_step_margin_ms,
            disconnected_ms=self.disconnected_after_ms,
        )
