"""What each segment of a lease used, what was granted, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass

from gridlease_kernel.money import amount_nano

from gridlease_billing.domain.grant_row import GrantRow
from gridlease_billing.domain.price import CURRENCY
from gridlease_billing.domain.segment import RUN_METER, chargeable


@dataclass(frozen=True, slots=True)
class Stored:
    """A lease as the books have it, beyond what its grant needs."""

    row: GrantRow
    price_version: int  # that was authorised; segments carry their own
    opened_ms: int
    invoice: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One segment of one lease on one meter: ``amount = rate x charged``, floor.

    What follows ``currency`` is told on invoices only. A line of another meter than run time counts
    in that meter's unit. ``before``: of a correction, what was charged already; its amount is
    ``f(before + charged) - f(before)``. ``source``: the row of the books that it stands for.
    """

    lease: str
    job: str
    node: str
    segment: int
    meter: str
    chip: str
    tier: str
    quantity_milli: int
    rate_nano_per_hour: int
    price_version: int
    counter_ns: int
    granted_ns: int
    charged_ns: int
    amount_nano: int
    opened_ms: int
    currency: str = CURRENCY
    kind: str = "USAGE"  # or CORRECTION, CREDIT, CREDIT_NOTE, PURCHASE
    site: str = ""
    starts_ms: int = 0
    ends_ms: int = 0
    before: int = 0
    cites: str = ""  # "invoices/{invoice}#{position}" of the line that it is about
    note: str = ""
    source: str = ""
    tax_nano: int = 0  # of a credit note: given back with it


def lines(stored: Stored) -> list[Line]:
    """A lease's lines, one for each segment; their amounts sum to its charge."""
    row = stored.row
    spans = chargeable(row.segments, row.counters)
    return [
        Line(
            lease=row.lease_id,
            job=row.ask.job,
            node=row.ask.node,
            segment=segment.number,
            meter=RUN_METER,
            chip=row.ask.chip,
            tier=row.ask.tier,
            quantity_milli=row.ask.quantity_milli,
            rate_nano_per_hour=segment.rate_nano_per_hour,
            price_version=segment.period,
            counter_ns=row.counters.get((segment.number, RUN_METER), 0),
            granted_ns=(segment.ends_ms - segment.starts_ms) * 1_000_000,
            charged_ns=span_ns,
            amount_nano=amount_nano(segment.rate_nano_per_hour, span_ns),
            opened_ms=stored.opened_ms,
        )
        for segment, span_ns in zip(row.segments, spans, strict=True)
    ]
