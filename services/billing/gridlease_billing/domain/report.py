"""What reports are about: records only, and the small sums on them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

_HOUR_MILLI_MS = 3_600_000 * 1_000  # an hour of one device
DAY_MS = 86_400_000


class Period(enum.StrEnum):
    """How rows are cut; UTC."""

    ALL = ""
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Span:
    """From (inclusive) until (exclusive), in milliseconds since 1970."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Revenue:
    """What one chip at one site brought in, in one period. ``starts_ms``: None = all in one."""

    starts_ms: int | None
    chip: str
    site: str
    device_milli_ms: int
    amount_nano: int
    tier: str = ""  # empty = all together
    supplier: str = ""  # empty = the platform's own, or all together

    @property
    def nano_per_device_hour(self) -> int:
        """Rounded down; 0 where no time was charged."""
        if not self.device_milli_ms:
            return 0
        return self.amount_nano * _HOUR_MILLI_MS // self.device_milli_ms


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much of one chip there was at a site, and what nobody used, at its on-demand price."""

    chip: str
    capacity_milli_ms: int
    idle_milli_ms: int
    price_nano_per_hour: int
    site: str = ""

    @property
    def amount_nano(self) -> int:
        """What the idle time would have earned, rounded down."""
        return self.idle_milli_ms * self.price_nano_per_hour // _HOUR_MILLI_MS


@dataclass(frozen=True, slots=True)
class Budget:
    """A month's budget. ``told_nano``: the spending of ``told_month_ms`` that was looked at."""

    tenant: str
    project: str
    amount_nano: int
    thresholds_permille: tuple[int, ...]
    told_month_ms: int = 0
    told_nano: int = 0

    def looked_at(self, month_ms: int) -> int:
        """How much of that month's spending was looked at before."""
        return self.told_nano if self.told_month_ms == month_ms else 0


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to tell, once for each key."""

    kind: str
    tenant: str
    project: str
    entity: str
    key: str
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Told:
    """A notice with its place."""

    sequence: int
    recorded_ms: int
    notice: Notice


@dataclass(frozen=True, slots=True)
class BooksCheck:
    """What the books found out by themselves."""

    head: str
    broken: tuple[str, ...]
    sum_nano: int
    off_balance: int
    journals: int
    entries: int
    astray: int
    months_ahead: int
    alarms: Mapping[str, int]
    suspense_nano: int = 0
    unexplained: int = 0  # of what lies in suspense, without an alarm

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        wrong = self.broken or self.sum_nano or self.off_balance or self.astray
        wrong = wrong or self.unexplained
        return not wrong and self.months_ahead > 0
