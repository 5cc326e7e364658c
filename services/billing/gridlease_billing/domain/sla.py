"""How much of a month a project's leases were there, and what is owed where that was too little.

A lease is there while its task runs. What of its granted time it was not there for, because its
node was lost or was not heard of until the grant ended, is down time; what it took to get ready is
neither. A lease counts whole, in the month (UTC) in which it ended.

Source: docs/prices.md, Availability.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gridlease_billing.domain.grant_row import Cause

# Below so many thousandths of the month, so many thousandths of what was interrupted had cost.
TABLE: tuple[tuple[int, int], ...] = ((995, 100), (990, 250), (950, 500))
LOST = frozenset({Cause.NODE_LOST, Cause.GRANT_ENDED})  # grants end where nobody hears the node


@dataclass(frozen=True, slots=True)
class Stay:
    """A lease that has ended. ``granted_ms``: from its first grant to the end of its last."""

    lease: str
    quantity_milli: int
    granted_ms: int
    run_ms: int
    provision_ms: int
    cause: str
    cost_nano: int  # of its run time
    contract: int = 0

    @property
    def is_lost(self) -> bool:
        return self.cause in LOST

    @property
    def down_ms(self) -> int:
        """How long it was not there while it should have been."""
        if not self.is_lost:
            return 0
        return max(0, self.granted_ms - self.run_ms - self.provision_ms)


@dataclass(frozen=True, slots=True)
class Month:
    """``credits``: by lease that was interrupted; ``permille``: of its cost."""

    up_milli_ms: int
    down_milli_ms: int
    permille: int
    credits: tuple[tuple[Stay, int], ...] = ()

    @property
    def credit_nano(self) -> int:
        return sum(nano for _, nano in self.credits)


def permille_of(up: int, down: int) -> int:
    """The credit for a month of ``up`` and ``down`` device-time.

    >>> [permille_of(1_000 - down, down) for down in (0, 5, 6, 10, 11, 50, 51)]
    [0, 0, 100, 100, 250, 250, 500]
    """
    owed = [credit for least, credit in TABLE if up * 1_000 < least * (up + down)]
    return max(owed, default=0)


def month_of(stays: Iterable[Stay]) -> Month:
    """What one project's leases that ended in one month come to, in any order."""
    known: Sequence[Stay] = sorted(stays, key=lambda it: it.lease)
    up = sum(it.run_ms * it.quantity_milli for it in known)
    down = sum(it.down_ms * it.quantity_milli for it in known)
    permille = permille_of(up, down)
    owed = ((it, it.cost_nano * permille // 1_000) for it in known if it.down_ms)
    return Month(up, down, permille, tuple((it, nano) for it, nano in owed if nano))
