"""Settings of billing, read once from ``GRIDLEASE_*`` variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gridlease_kernel.faults import Invalid
from gridlease_mesh import settings as reader

from gridlease_billing.domain.admission import LONGEST_NOTICE_MS
from gridlease_billing.domain.grant_row import Terms
from gridlease_billing.domain.spot import SpotPolicy

_FEWEST_CONNECTIONS = 2


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
    grant_ms: int = 120_000
    hold_ttl_ms: int = 60_000
    late_after_ms: int = 604_800_000
    slow_tick_ms: int = 10_000
    restored_wait_ms: int = -1  # after a restore; -1 = the longest grant; 0 = no node runs, surely
    budgets_every_ms: int = 30_000  # how often spending is held against budgets
    kill_margin_ms: int = 2_000
    clock_step_margin_ms: int = 3_000
    drift_ppm: int = 1_000
    notice_ms: int = 30_000
    gather_ms: int = 100  # how long counters wait for those of other nodes: one commit for all
    billing_connections: int = 8  # to PostgreSQL, of one process
    billing_default_prices: bool = True  # load prices/default.toml where nothing is priced
    spot_window_ms: int = 300_000  # in one, a spot price moves once and by 2 % at most
    spot_floor_permille: int = 200  # of the on-demand price, where power's price is not known
    spot_wear_permille: int = 50  # of the on-demand price, beside power, where that is known
    spot_target_permille: int = 900  # of what there is: so full a chip should be
    spot_fixed: str = ""  # chips, by commas, whose spot price only a hand changes; * = all

    @property
    def owner_dsn(self) -> str:
        return self.postgres_owner_dsn or self.postgres_dsn

    @property
    def longest_ms(self) -> int:
        """The longest that a grant issued now may let a lease run."""
        return max(self.grant_ms, LONGEST_NOTICE_MS) + self.terms().margin_ms

    @property
    def reopens_after_ms(self) -> int:
        """How long after a restore grants of before may still run."""
        return self.longest_ms if self.restored_wait_ms < 0 else self.restored_wait_ms

    def terms(self) -> Terms:
        """The protocol's times. Source: docs/lease-protocol.md, section 5."""
        drift_ms = -(-self.grant_ms * self.drift_ppm // 1_000_000)
        return Terms(
            grant_ms=self.grant_ms,
            hold_ttl_ms=self.hold_ttl_ms,
            late_after_ms=self.late_after_ms,
            margin_ms=self.kill_margin_ms + self.clock_step_margin_ms + drift_ms,
        )

    def spot(self) -> SpotPolicy:
        """How spot prices move."""
        return SpotPolicy(
            floor_permille=self.spot_floor_permille,
            wear_permille=self.spot_wear_permille,
            target_permille=self.spot_target_permille,
            window_ms=self.spot_window_ms,
            fixed=frozenset(it.strip() for it in self.spot_fixed.split(",") if it.strip()),
        )


def load(environ: Mapping[str, str]) -> Settings:
    """The settings in ``environ``.

    Raises:
        Invalid: a variable is missing, malformed or not positive.
    """
    found = reader.read(Settings, environ)
    spans = ("grant_ms", "hold_ttl_ms", "late_after_ms", "slow_tick_ms")
    for name in (*spans, "budgets_every_ms", "spot_window_ms"):
        if getattr(found, name) <= 0:
            raise _too_small(name, 1)
    for name in ("spot_floor_permille", "spot_wear_permille"):
        if not 0 <= getattr(found, name) <= 1_000:
            raise _not_permille(name)
    if found.spot_target_permille < 0:
        raise _too_small("spot_target_permille", 0)
    if not 0 <= found.gather_ms <= 1_000:
        raise _not_permille("gather_ms")
    if found.billing_connections < _FEWEST_CONNECTIONS:
        raise _too_small("billing_connections", _FEWEST_CONNECTIONS)
    return found


def _not_permille(name: str) -> Invalid:
    variable = f"{reader.PREFIX}{name.upper()}"
    return Invalid(
        f"{variable} is not between 0 and 1000.",
        reason="SETTING_OUT_OF_RANGE",
        field=variable,
        remedy="Correct it, or unset it for the default.",
    )


def _too_small(name: str, least: int) -> Invalid:
    variable = f"{reader.PREFIX}{name.upper()}"
    return Invalid(
        f"{variable} is below {least}.",
        reason="SETTING_TOO_SMALL",
        field=variable,
        remedy="Raise it, or unset it for the default.",
    )
