"""Settings, from ``GRIDLEASE_*`` variables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .domain.electricity.idle import SleepPolicy
from .domain.eviction.moving import MovingRules
from .domain.lease import Terms
from .domain.sizing.replicas import ReplicaRules
from .domain.sizing.training import TrainingRules
from .slow import SlowRules


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field is the variable of its name; spans in milliseconds.

    ``postgres_owner_dsn`` migrates at start (default: ``postgres_dsn``).
    ``node_nats_url`` is told to nodes that enrol (default: ``nats_url``).
    ``nats_replicas``: copies of the event feed; 3 in a cluster of three.
    ``slow_path_ms``: how often the slow path thinks; a job is resized ``resize_settle_ms`` after it
    was heard to run at the earliest, a service ``service_settle_ms``, and a service gives replicas
    back when fewer were enough for ``service_hold_ms``. ``moves_per_hour``: jobs that are moved to
    make room for a larger one, of each chip; 0 = none.
    ``spot_window_ms``: how often billing is told how full each chip is, for the spot prices.
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
    slow_path_ms: int = 15_000
    optimiser_timeout_ms: int = 10_000
    resize_settle_ms: int = 300_000
    service_settle_ms: int = 60_000
    service_hold_ms: int = 300_000
    moves_per_hour: int = 12
    empty_before_sleep_ms: int = 900_000
    awake_reserve: int = 1
    spot_window_ms: int = 300_000

    def slow(self) -> SlowRules:
        """How the slow path goes about it."""
        return SlowRules(
            every_ms=self.slow_path_ms,
            training=TrainingRules(settle_ms=self.resize_settle_ms),
            replicas=ReplicaRules(
                every_ms=self.slow_path_ms,
                hold_ms=self.service_hold_ms,
                settle_ms=self.service_settle_ms,
                stale_ms=max(45_000, 3 * self.slow_path_ms),
            ),
            moving=MovingRules(moves_per_hour=self.moves_per_hour, waited_ms=2 * self.slow_path_ms),
            sleep=SleepPolicy(self.empty_before_sleep_ms, self.awake_reserve),
        )

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
