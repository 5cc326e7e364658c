"""Thirty days late or in order, doubled or not: the same total, to the atom."""

import dataclasses

from gridlease_billing.domain import grant
from gridlease_billing.domain.grant_row import Ask, Cause, Funds, Phase, Quote, Report, Terms
from gridlease_billing.domain.late import Written, corrections, owed_nano
from gridlease_billing.domain.segment import fold
from hypothesis import given
from hypothesis import strategies as st

TERMS = Terms(grant_ms=60_000, late_after_ms=3_600_000)
_MONTH_MS = 30 * 24 * 3_600_000
_MUCH = Funds(10**18)
_ASK = Ask("l1", tenant="t", notice_ms=30_000)


def _settled(row, told, now_ms, quote):
    reports = {"l1": told}
    return grant.settle([row], reports, {"l1": quote}, _MUCH, now_ms, TERMS).rows[0]


def _granted(rates):
    """A lease that was granted a segment at each of these rates, and its times of renewal."""
    quote = Quote(rates[0], 1)
    row = grant.authorize({}, [_ASK], {"l1": quote}, _MUCH, 0, TERMS).rows[0]
    row = _settled(row, Report("l1", "s", Phase.KNOWN), 0, quote)
    for n, rate in enumerate(rates[1:], start=1):
        row = _settled(row, Report("l1", "s", Phase.STARTING), 40_000 * n, Quote(rate, n + 1))
    return row


def _late_nano(row, final, now_ms):
    """What comes to the bill by reports after the end."""
    written = {
        it.number: Written(ns, 1)
        for it, ns in zip(row.segments, grant.chargeable_ns(row), strict=True)
    }
    counters = fold(row.counters, final.counters)
    return owed_nano(corrections(dataclasses.replace(row, counters=counters), written, now_ms))


@given(
    st.lists(st.integers(0, 40 * 10**9), min_size=1, max_size=4),
    st.lists(st.integers(0, 38_000_000_000), min_size=4, max_size=4),
    st.integers(0, _MONTH_MS),
)
def test_late_data_comes_to_the_same_total(rates, spans, late_ms):
    row = _granted(rates)
    assert len(row.segments) <= len(rates)
    counters = {(it.number, "run"): spans[it.number - 1] for it in row.segments}
    last = Report("l1", "s", Phase.CLEAN, final=True, counters=counters)
    quote = Quote(rates[-1], len(rates))
    in_order = _settled(row, last, row.ends_at_ms, quote)
    assert in_order.state == "FINAL"

    silent = grant.close(row, "l1", 0, Cause.NODE_LOST, row.ends_at_ms, TERMS).row
    silent = grant.expire(silent, silent.ends_at_ms + TERMS.late_after_ms, TERMS)
    assert (silent.state, silent.charged_nano) == ("FINAL", 0)
    now_ms = silent.ends_at_ms + TERMS.late_after_ms + late_ms
    now_ms = min(now_ms, silent.ends_at_ms + _MONTH_MS + TERMS.late_after_ms)
    assert silent.charged_nano + _late_nano(silent, last, now_ms) == in_order.charged_nano


@given(st.permutations(range(8)), st.lists(st.integers(0, 7), max_size=12))
def test_disorder_and_copies_come_to_the_same_total(order, copies):
    row = _granted([3_600_000_000, 7_200_000_001])
    told = [
        Report("l1", "s", Phase.STARTING, counters={(1, "run"): n * 4_999_999_999})
        for n in range(8)
    ]
    quote = Quote(7_200_000_001, 2)
    straight = mixed = row
    for it in told:
        straight = _settled(straight, it, 45_000, quote)
    for n in [*order, *copies, *order]:
        mixed = _settled(mixed, told[n], 45_000, quote)
    assert mixed.charged_nano == straight.charged_nano > 0
