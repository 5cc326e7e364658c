"""What a job has cost so far, what it costs an hour, and until when its money lasts at most."""

from __future__ import annotations

import enum
from dataclasses import dataclass

_HOUR_MS = 3_600_000


class Limit(enum.StrEnum):
    """What ends first."""

    BUDGET = "BUDGET"
    BALANCE = "BALANCE"


@dataclass(frozen=True, slots=True)
class LeaseCost:
    """A lease that has not ended, as the books have it. ``segment`` 0: nothing was granted yet."""

    lease: str
    node: str
    chip: str
    quantity_milli: int
    state: str
    segment: int
    rate_nano_per_hour: int
    charged_nano: int
    held_nano: int
    ends_at_ms: int

    def left_ms(self, now_ms: int) -> int:
        """Until its grant (or, before the first, its hold) ends."""
        return max(0, self.ends_at_ms - now_ms)


@dataclass(frozen=True, slots=True)
class JobCost:
    """All of it read at one instant, ``now_ms`` on the books' clock.

    ``charged_nano``, ``held_nano``, ``rate_nano_per_hour``: of all its leases, also those that
    ``leases`` has no place for. ``spendable_nano``: what the tenant's charges may still add up to,
    its holds among it. ``tenant_rate_nano_per_hour``: of all that the tenant runs.
    """

    job: str
    now_ms: int
    charged_nano: int
    other_nano: int
    credited_nano: int
    held_nano: int
    rate_nano_per_hour: int
    budget_nano: int | None
    available_nano: int
    spendable_nano: int
    tenant_rate_nano_per_hour: int
    ended: int
    leases: tuple[LeaseCost, ...] = ()

    @property
    def lasts(self) -> tuple[int, Limit] | None:
        """For how long charges can grow at the rates of now, and what ends then.

        A grant is always paid ahead, so work ends by its last grant at this time or before.
        None: nothing of it runs, or it costs nothing.
        """
        if self.rate_nano_per_hour == 0:
            return None
        # The job is part of what the tenant runs.
        whole = max(self.tenant_rate_nano_per_hour, self.rate_nano_per_hour)
        found = [(_lasts_ms(self.spendable_nano, whole), Limit.BALANCE)]
        if self.budget_nano is not None:
            left = self.budget_nano - self.charged_nano
            found.append((_lasts_ms(left, self.rate_nano_per_hour), Limit.BUDGET))
        return min(found, key=lambda it: it[0])

    @property
    def grant_left_ms(self) -> int | None:
        """The soonest end of a grant of its leases that run; None where none does."""
        left = [it.left_ms(self.now_ms) for it in self.leases if it.state == "OPEN"]
        return min(left, default=None)


def _lasts_ms(left_nano: int, rate_nano_per_hour: int) -> int:
    return max(0, left_nano) * _HOUR_MS // rate_nano_per_hour
