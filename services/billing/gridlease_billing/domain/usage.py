"""What each segment of a lease used, what was granted, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gridlease_kernel.money import amount_nano

from gridlease_billing.domain.grant_row import GrantRow
from gridlease_billing.domain.price import CURRENCY
from gridlease_billing.domain.priority import METER, priority_part
from gridlease_billing.domain.segment import RUN_METER, chargeable

TIMED = (RUN_METER, METER)  # the meters of lines that are of run time, at a rate


@dataclass(frozen=True, slots=True)
class Stored:
    """A lease as the books have it, beyond what its grant needs."""

    row: GrantRow
    price_version: int  # that was authorised; segments carry their own
    opened_ms: int
    invoice: str = ""
    suspense_ns: int = 0  # told beyond what may be charged, when it was last decided


@dataclass(frozen=True, slots=True)
class Line:
    """One segment of one lease on one meter: ``amount = rate x charged``, floor. Of a priority it
    is what the whole costs less what its base does (``priority``).

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
    """A lease's lines as they are shown: one for each segment, and one for what its priority makes
    of it, where that is anything; their amounts sum to its charge."""
    segments = zip(stored.row.segments, wholes(stored), strict=True)
    return [
        part
        for segment, whole in segments
        for part in parted(whole, segment.surcharge_nano_per_hour, segment.priority_version)
    ]


def parted(whole: Line, surcharge_nano_per_hour: int, priority_version: int) -> list[Line]:
    """A line of run time as its base and its priority, which add up to it to the atom."""
    if not surcharge_nano_per_hour:
        return [whole]
    rate, before = whole.rate_nano_per_hour, whole.before
    of_all = priority_part(rate, surcharge_nano_per_hour, before + whole.charged_ns)
    part = of_all - priority_part(rate, surcharge_nano_per_hour, before)
    base = replace(
        whole,
        rate_nano_per_hour=rate - surcharge_nano_per_hour,
        amount_nano=whole.amount_nano - part,
    )
    priority = replace(
        whole,
        meter=METER,
        rate_nano_per_hour=surcharge_nano_per_hour,
        price_version=priority_version,
        amount_nano=part,
        source=f"{whole.source}/priority" if whole.source else "",
    )
    return [base, priority]


def wholes(stored: Stored) -> list[Line]:
    """A lease's lines as they are charged, one for each segment, at its whole rate."""
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
