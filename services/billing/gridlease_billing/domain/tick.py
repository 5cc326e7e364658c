"""Which counters of a lease may move, and be charged, without a decision about the lease?

Between two renewals a report only advances counters: nothing is granted, refused or ended by it.
What may move, until when and how far is decided here and written beside the counters, so that one
statement can fold and charge the reports of many nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gridlease_kernel.money import amount_nano

from gridlease_billing.domain.grant_row import (
    RENEW_BELOW_PERMILLE,
    GrantRow,
    Phase,
    Report,
    State,
)
from gridlease_billing.domain.segment import RUN_METER, chargeable, span_ns

# The meters that every segment has a place for; others are kept one by one, and never move alone.
CATALOGUE = (RUN_METER, "egress", "storage", "energy", "provision")
FASTEST_NANO_PER_HOUR = 2_500_000_000_000  # cost_nano() of the schema is exact up to here


@dataclass(frozen=True, slots=True)
class Track:
    """A segment's counters, in the catalogue's order, and how they may move by themselves.

    ``quick_until_ms``: 0 = not at all. ``cap_ns``: run time as far as this. ``rated_nano``: what
    its run time costs; ticks charge differences to it.
    """

    segment: int
    counts: tuple[int, ...]
    rate_nano_per_hour: int = 0
    cap_ns: int = 0
    rated_nano: int = 0
    starts_ms: int = 0
    quick_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """What a process remembers of a lease, to tell ticks apart from reports that need a decision.

    All of it may be old: a grant's end never comes nearer, and the database looks again.
    """

    meter_id: int  # of the current segment's counters
    node: str
    spool_id: str
    node_key: str
    segment: int
    rate_nano_per_hour: int
    ends_at_ms: int
    quick_until_ms: int
    account: int = 0  # that it is charged to; ticks of one account are posted together


def tracks(row: GrantRow) -> Iterator[Track]:
    """Each segment's counters."""
    spans = chargeable(row.segments, row.counters)
    quick = _quick(row)
    for segment in row.segments:
        counts = tuple(row.counters.get((segment.number, meter), 0) for meter in CATALOGUE)
        if not quick or segment is not row.segments[-1]:
            yield Track(segment.number, counts, starts_ms=segment.starts_ms)
            continue
        cap_ns = min(segment.granted_ns, span_ns(row.segments) - sum(spans[:-1]))
        rate = segment.rate_nano_per_hour
        yield Track(
            segment.number,
            counts,
            rate,
            cap_ns,
            amount_nano(rate, min(counts[0], cap_ns)),
            segment.starts_ms,
            quick_until_ms(row) if counts[0] <= cap_ns else 0,
        )


def quick_until_ms(row: GrantRow) -> int:
    """Before this, no report is a reason to renew."""
    return row.ends_at_ms + (-row.grant_ms * RENEW_BELOW_PERMILLE) // 1_000


def only_counts(report: Report, known: Known, node: str, now_ms: int) -> bool:
    """Can this report do no more than advance the current segment's counters?"""
    return (
        report.phase is Phase.STARTING
        and not report.final
        and known.node == node
        and known.spool_id == report.spool_id
        and now_ms < known.quick_until_ms
        and all(
            segment == known.segment and meter in CATALOGUE for segment, meter in report.counters
        )
    )


def _quick(row: GrantRow) -> bool:
    return (
        row.state is State.OPEN
        and row.spool_id is not None
        and all(segment.frozen_ns is not None for segment in row.segments[:-1])
        and row.segments[-1].rate_nano_per_hour <= FASTEST_NANO_PER_HOUR
    )
