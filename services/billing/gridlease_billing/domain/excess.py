"""Run time that a node told and nobody may be charged for: how much, what it would have cost.

All of it is of totals: what a segment's node told at its furthest, less what was charged. So it
grows and shrinks with both, and what is posted is the difference to what was posted before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gridlease_kernel.money import amount_nano

from gridlease_billing.domain.segment import Segment

# A counter may say anything. Beyond these its figure says nothing more, and sums stay in 64 bits.
MOST_NS = 35 * 24 * 3_600 * 10**9
MOST_NANO = 10**15


@dataclass(frozen=True, slots=True)
class Excess:
    """One segment's. ``cause``: the alarm that explains it. ``open_nano``: what lies in suspense:
    its price, less what was written off."""

    lease_id: str
    segment: int
    tenant: str
    cause: str
    told_ns: int
    charged_ns: int
    amount_nano: int
    written_off_nano: int = 0
    recorded_ms: int = 0

    @property
    def excess_ns(self) -> int:
        return max(0, self.told_ns - self.charged_ns)

    @property
    def open_nano(self) -> int:
        return max(0, self.amount_nano - self.written_off_nano)


def price_nano(rate_nano_per_hour: int, told_ns: int, charged_ns: int) -> int:
    """What run time beyond ``charged_ns`` would have cost."""
    if told_ns <= charged_ns:
        return 0
    until_ns = min(told_ns, charged_ns + MOST_NS)
    beyond = amount_nano(rate_nano_per_hour, until_ns) - amount_nano(rate_nano_per_hour, charged_ns)
    return min(beyond, MOST_NANO)


def excesses(
    lease_id: str,
    tenant: str,
    segments: Iterable[Segment],
    before: Mapping[int, Excess],
    told_ns: Mapping[int, int],
    charged_ns: Mapping[int, int],
    cause: str,
) -> list[Excess]:
    """Those that changed. ``told_ns``: what is told now; ``cause``: of what is new."""
    changed = []
    for segment in segments:
        number = segment.number
        old = before.get(number)
        told = max(told_ns.get(number, 0), old.told_ns if old else 0)
        charged = charged_ns.get(number, 0)
        amount = price_nano(segment.rate_nano_per_hour, told, charged)
        if old is None:
            if told > charged:
                changed.append(Excess(lease_id, number, tenant, cause, told, charged, amount))
            continue
        why = cause if told > old.told_ns and told > charged else old.cause
        new = replace(old, cause=why, told_ns=told, charged_ns=charged, amount_nano=amount)
        if new != old:
            changed.append(new)
    return changed


def moved_nano(before: Mapping[int, Excess], after: Iterable[Excess]) -> int:
    """By how much what lies in suspense changes."""
    gone = {it.segment: it.open_nano for it in before.values()}
    return sum(it.open_nano - gone.get(it.segment, 0) for it in after)
