"""Which counters of a lease may move, and be charged, without a decision about the lease?

Between two renewals a report only advances counters: nothing is granted, refused or ended by it.
What may move, until when and how far is decided here and written beside the counters, so that one
statement can fold and charge the reports of many nodes.
"""

from __future__ import annotations

import hashlib
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

FREE_CAP = 2**58  # of a meter without a price


@dataclass(frozen=True, slots=True)
class Track:
    """One counter, and how it may move by itself.

    ``quick_until_ms``: 0 = not at all. ``cap``: as far as this. ``starts_ms``: of its segment.
    ``rated_nano``: what its whole count costs; ticks charge differences to it.
    """

    segment: int
    meter: str
    cumulative: int
    rate_nano_per_hour: int = 0
    cap: int = 0
    rated_nano: int = 0
    starts_ms: int = 0
    quick_until_ms: int = 0


def tracks(row: GrantRow) -> Iterator[Track]:
    """Each counter of a lease."""
    quick = _quick(row)
    spans = chargeable(row.segments, row.counters)
    for (number, meter), cumulative in sorted(row.counters.items()):
        last = quick and number == row.segments[-1].number
        if not last or meter != RUN_METER:
            until = _until_ms(row) if last else 0
            yield Track(number, meter, cumulative, cap=FREE_CAP, quick_until_ms=until)
            continue
        segment = row.segments[-1]
        cap = min(segment.granted_ns, span_ns(row.segments) - sum(spans[:-1]))
        rate = segment.rate_nano_per_hour
        yield Track(
            number,
            meter,
            cumulative,
            rate,
            cap,
            amount_nano(rate, min(cumulative, cap)),
            segment.starts_ms,
            _until_ms(row) if cumulative <= cap else 0,
        )


def reporter(node: str, spool_id: str | None) -> int:
    """Who may speak of a lease, as one signed 64-bit number."""
    text = f"{node}\0{spool_id or ''}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big", signed=True)


def only_counts(report: Report) -> bool:
    """May this report do no more than advance counters?"""
    return report.phase is Phase.STARTING and not report.final and bool(report.counters)


def _quick(row: GrantRow) -> bool:
    return (
        row.state is State.OPEN
        and row.spool_id is not None
        and all(segment.frozen_ns is not None for segment in row.segments[:-1])
    )


def _until_ms(row: GrantRow) -> int:
    """Before this, no report is a reason to renew."""
    return row.ends_at_ms + (-row.grant_ms * RENEW_BELOW_PERMILLE) // 1_000
