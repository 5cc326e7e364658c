"""A segment: how much of a stretch of a lease, at one rate, may be charged?

Segments of one lease may overlap in time: billing opens the next one when it renews, the agent
goes over to it when it hears of it, and until then uses up the one before. So each segment has
its own bound, and their sum has one: from the first grant to the end of the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gridlease_kernel.money import amount_nano

RUN_METER = "run"  # the meter that a grant bounds; others are folded and priced elsewhere

Counters = Mapping[tuple[int, str], int]  # (segment number, meter) -> cumulative


@dataclass(frozen=True, slots=True)
class Segment:
    """``starts_ms``, ``ends_ms``: database clock. ``frozen_ns``: its final run time, once the
    lease has been seen in a later segment. ``surcharge_nano_per_hour``: of the rate, what the
    job's priority adds."""

    number: int
    rate_nano_per_hour: int
    period: int
    starts_ms: int
    ends_ms: int
    frozen_ns: int | None = None
    surcharge_nano_per_hour: int = 0
    priority_version: int = 0

    @property
    def granted_ns(self) -> int:
        if self.frozen_ns is not None:
            return self.frozen_ns
        return (self.ends_ms - self.starts_ms) * 1_000_000


def fold(counters: Counters, reported: Counters) -> Counters:
    """The high-water mark of both: any order and any number of copies give the same."""
    higher = {key: value for key, value in reported.items() if value > counters.get(key, -1)}
    return {**counters, **higher} if higher else counters


def span_ns(segments: tuple[Segment, ...]) -> int:
    """From the first grant to the end of the last."""
    if not segments:
        return 0
    return (segments[-1].ends_ms - segments[0].starts_ms) * 1_000_000


def frozen(segments: tuple[Segment, ...], counters: Counters) -> tuple[Segment, ...]:
    """A segment before one that has been used is over: its counter is final."""
    used = max((s.number for s in segments if counters.get((s.number, RUN_METER), 0)), default=0)
    if all(s.frozen_ns is not None for s in segments if s.number < used):
        return segments
    return tuple(
        replace(s, frozen_ns=min(counters.get((s.number, RUN_METER), 0), s.granted_ns))
        if s.number < used and s.frozen_ns is None
        else s
        for s in segments
    )


def chargeable(segments: tuple[Segment, ...], counters: Counters) -> tuple[int, ...]:
    """Chargeable nanoseconds by segment: capped one by one and, earlier ones first, in sum."""
    left = span_ns(segments)
    result = []
    for segment in segments:
        ns = min(counters.get((segment.number, RUN_METER), 0), segment.granted_ns, left)
        left -= ns
        result.append(ns)
    return tuple(result)


def rated(segments: tuple[Segment, ...], counters: Counters) -> int:
    """The charge of all segments, each rated on its cumulative total."""
    spans = zip(segments, chargeable(segments, counters), strict=True)
    return sum(amount_nano(segment.rate_nano_per_hour, ns) for segment, ns in spans)


def open_rate(segments: tuple[Segment, ...]) -> tuple[int, int]:
    """The dearest rate at which run time may still arrive, and in how many segments it may."""
    rates = [s.rate_nano_per_hour for s in segments if s.frozen_ns is None]
    return max(rates), len(rates)


def reported_ns(counters: Counters) -> int:
    """All run time that was reported, granted or not."""
    return sum(ns for (_, meter), ns in counters.items() if meter == RUN_METER)
