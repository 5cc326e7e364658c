"""What is owed for run time that a node told only after its lease was final.

A lease that falls silent is made final with what was heard. If the node comes back, what it
counted within its grants is charged then, as corrections of the lines that were written: in sum,
exactly what would have been charged had nothing been late.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from gridlease_kernel.money import amount_nano

from gridlease_billing.domain.grant_row import GrantRow
from gridlease_billing.domain.segment import RUN_METER, Counters, chargeable, reported_ns

LONGEST_LATE_MS = 35 * 24 * 3_600_000  # after a lease's end; later than that nothing is charged


@dataclass(frozen=True, slots=True)
class Written:
    """What the lines of a segment say already: its run time that is charged, and when the line
    that all corrections cite was written."""

    charged_ns: int
    cites_ms: int


@dataclass(frozen=True, slots=True)
class Correction:
    """A line to write. Both may be below zero: an earlier segment that counts more leaves a later
    one less of their common span."""

    segment: int
    before_ns: int
    charged_ns: int
    amount_nano: int
    cites_ms: int


def is_late(before: GrantRow, after: GrantRow) -> bool:
    """Has a final lease counted further?"""
    return reported_ns(after.counters) > reported_ns(before.counters)


def charged_from(before: GrantRow | None, after: GrantRow) -> Counters:
    """The counters that the lines of a lease that is now final were charged from: without what
    came with the report that found it over, which is a correction of them."""
    if before is None:
        return after.counters
    charged = chargeable(after.segments, after.counters)
    whole = tuple(replace(segment, frozen_ns=None) for segment in after.segments)
    late = charged != chargeable(whole, after.counters)
    if late and charged == chargeable(before.segments, before.counters):
        return before.counters
    return after.counters


def corrections(row: GrantRow, written: Mapping[int, Written], now_ms: int) -> list[Correction]:
    """The lines that make a final lease's charge what its counters and grants say."""
    if now_ms > row.ends_at_ms + LONGEST_LATE_MS:
        return []
    whole = tuple(replace(segment, frozen_ns=None) for segment in row.segments)
    due = zip(whole, chargeable(whole, row.counters), strict=True)
    found = []
    for segment, ns in due:
        known = written.get(segment.number)
        if known is None or ns == known.charged_ns:
            continue
        rate = segment.rate_nano_per_hour
        amount = amount_nano(rate, ns) - amount_nano(rate, known.charged_ns)
        found.append(
            Correction(
                segment.number, known.charged_ns, ns - known.charged_ns, amount, known.cites_ms
            )
        )
    return found


def owed_nano(found: Iterable[Correction]) -> int:
    """What they come to; never below zero, for the counters only grew."""
    return sum(it.amount_nano for it in found)


__all__ = [
    "RUN_METER",
    "Correction",
    "Written",
    "charged_from",
    "corrections",
    "is_late",
    "owed_nano",
]
