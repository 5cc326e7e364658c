"""What of a node's report is proof of a charge, and what of it is not believed.

A report that is believed proves its segments' counters. What is told beyond that is kept apart,
beside an alarm, and its run time is an excess: nobody is charged for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gridlease_billing.domain.grant_row import GrantRow, Report, State, Terms
from gridlease_billing.domain.late import LONGEST_LATE_MS
from gridlease_billing.domain.segment import RUN_METER, Segment
from gridlease_billing.domain.tick import CATALOGUE

MAX_CUMULATIVE = 2**58  # nine years in ns: beyond it a counter is no counter
WHOLE = ""  # the part of a report that proves every meter of its segment
AHEAD_OF_TIME = "RUN_AHEAD_OF_TIME"
BEYOND_GRANT = "RUN_BEYOND_GRANT"
SEGMENT_OVER = "RUN_OF_SEGMENT_OVER"
SEGMENT_UNKNOWN = "SEGMENT_UNKNOWN"
TOO_LATE = "RUN_TOO_LATE"
SPOOL_MISMATCH = "SPOOL_MISMATCH"


@dataclass(frozen=True, slots=True)
class Proof:
    """A report's word on one segment. ``counts``: in the catalogue's order, as far as they are
    believed; None = that meter's is not. ``part``: WHOLE, or which of several reports it is."""

    lease_id: str
    segment: int
    part: str
    text: str
    signature: bytes
    counts: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Heard:
    """``told_ns``: run time by segment, believed or not. ``doubts``: kinds of alarms, with what
    they are about."""

    proofs: tuple[Proof, ...] = ()
    told_ns: Mapping[int, int] = field(default_factory=dict)
    doubts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def elapsed_ns(segment: Segment, now_ms: int, terms: Terms) -> int:
    """As much run time as a segment can have by now."""
    elapsed = max(0, now_ms + terms.ahead_ms - segment.starts_ms) * 1_000_000
    return min(elapsed, MAX_CUMULATIVE)


def is_over(row: GrantRow, segment: Segment) -> bool:
    """Does this segment's run time count no further, for a later one has been used?"""
    return row.state is not State.FINAL and segment.frozen_ns is not None


def heard(report: Report, row: GrantRow, now_ms: int, terms: Terms) -> Heard:
    """``report``: as its node signed it; ``row``: its lease, as time has left it."""
    if row.spool_id is not None and row.spool_id != report.spool_id:
        return Heard(doubts={SPOOL_MISMATCH: {"spool": report.spool_id}})
    part = _part(row, now_ms)
    known = {it.number: it for it in row.segments}
    told: dict[int, int] = {}
    doubts: dict[str, Mapping[str, str]] = {}
    proofs: list[Proof] = []
    for number in sorted({segment for segment, _ in report.counters}):
        segment = known.get(number)
        counts = {m: n for (s, m), n in report.counters.items() if s == number}
        if segment is None:
            doubts[SEGMENT_UNKNOWN] = {"segment": str(number)}
            continue
        run_ns = told[number] = counts.get(RUN_METER, 0)
        most_ns = elapsed_ns(segment, now_ms, terms)
        before_ns = row.counters.get((number, RUN_METER), 0)
        over = is_over(row, segment) and run_ns > before_ns
        kind = AHEAD_OF_TIME if run_ns > max(most_ns, before_ns) else SEGMENT_OVER if over else ""
        if not kind and part == _OVERDUE and run_ns > before_ns:
            kind = TOO_LATE
        if kind:
            doubts[kind] = {"segment": str(number), "told_ns": str(run_ns), "most_ns": str(most_ns)}
        believed = {**counts, RUN_METER: min(run_ns, most_ns)}
        row_of = tuple(_counts(believed, over=over))
        proofs.append(Proof(report.lease_id, number, part, report.text, report.signature, row_of))
    return Heard(tuple(proofs), told, doubts)


_OVERDUE = "late/over"


def _part(row: GrantRow, now_ms: int) -> str:
    if row.state is not State.FINAL:
        return WHOLE
    return _OVERDUE if now_ms > row.ends_at_ms + LONGEST_LATE_MS else f"late/{now_ms}"


def _counts(believed: Mapping[str, int], *, over: bool) -> Iterator[int | None]:
    for meter in CATALOGUE:
        run_is_not = over and meter == RUN_METER
        yield None if run_is_not else min(believed.get(meter, 0), MAX_CUMULATIVE)
