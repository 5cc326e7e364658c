"""Ticks go no further than a decision would: whatever they take may be charged, all of it."""

from dataclasses import replace

from gridlease_billing.domain import grant
from gridlease_billing.domain.grant_row import Ask, GrantRow, State
from gridlease_billing.domain.segment import Segment, chargeable, frozen
from gridlease_billing.domain.tick import tracks
from gridlease_kernel.money import amount_nano
from hypothesis import assume, given
from hypothesis import strategies as st

RATE = 36_000_000_007


@st.composite
def rows(draw):
    """Leases in their last segment; each segment is opened before the one before it ends."""
    segments, starts_ms, ends_ms = [], 0, 0
    for number in range(1, draw(st.integers(1, 4)) + 1):
        starts_ms = draw(st.integers(starts_ms, ends_ms))
        ends_ms += draw(st.integers(1, 60_000))
        segments.append(Segment(number, RATE, number, starts_ms, ends_ms))
    counters = {(it.number, "run"): draw(st.integers(0, it.granted_ns)) for it in segments}
    row = GrantRow(
        Ask("a"), RATE, 60_000, State.OPEN, ends_ms, tuple(segments), "s", dict(counters)
    )
    return replace(row, segments=frozen(row.segments, row.counters))


@given(rows())
def test_what_a_tick_may_take_a_decision_would_charge(row):
    last = list(tracks(row))[-1]
    assume(last.quick_until_ms)
    for more, taken in ((0, last.cap_ns), (1, last.cap_ns)):
        told = {**row.counters, (last.segment, "run"): last.cap_ns + more}
        assert chargeable(row.segments, told)[-1] == taken
    spans = chargeable(row.segments, row.counters)
    assert last.rated_nano == amount_nano(RATE, spans[-1])
    assert grant.rated_nano(row) == sum(amount_nano(RATE, ns) for ns in spans)
