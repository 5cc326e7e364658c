"""What each tenant has used lately, as the scheduler's books have it for fair shares."""

from __future__ import annotations

from collections.abc import Iterable

from gridlease_scheduler.domain.chips import Catalogue
from gridlease_scheduler.domain.job import Allocation
from gridlease_scheduler.domain.order.decay import HALF_LIFE_MS, used_lately
from gridlease_scheduler.domain.order.fair import decayed
from gridlease_scheduler.domain.snapshot import Running, Share


class Usage:
    """Ended leases count less from day to day; running ones are added when asked for."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._speeds = {chip.name: chip.throughput for chip in catalogue.chips}
        self._spent: dict[str, tuple[int, int]] = {}  # by tenant: how much, as of which instant

    def ended(self, tenant: str, held: Allocation, ran_ms: int, now_ms: int) -> None:
        """A lease of a tenant has ended."""
        before, at_ms = self._spent.get(tenant, (0, now_ms))
        left = decayed(before, now_ms - at_ms, HALF_LIFE_MS)
        self._spent[tenant] = (left + self._lately(held, ran_ms), now_ms)

    def shares(self, running: Iterable[Running], now_ms: int) -> tuple[Share, ...]:
        """Every tenant's use as of now, all of equal weight."""
        used = {
            tenant: decayed(spent, now_ms - at_ms, HALF_LIFE_MS)
            for tenant, (spent, at_ms) in self._spent.items()
        }
        for lease in running:
            ran_ms = now_ms - lease.started_ms
            used[lease.tenant] = used.get(lease.tenant, 0) + self._lately(lease.allocation, ran_ms)
        return tuple(Share(tenant, used=used[tenant]) for tenant in sorted(used))

    def _lately(self, held: Allocation, ran_ms: int) -> int:
        return used_lately(held.quantity_milli, self._speeds.get(held.chip, 0), ran_ms)
