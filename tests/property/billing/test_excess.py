"""What nobody may be charged for, as money: of totals, in any order, however often it is told."""

from gridlease_billing.domain.evidence import (
    AHEAD_OF_TIME,
    SEGMENT_OVER,
    SPOOL_MISMATCH,
    TOO_LATE,
    heard,
)
from gridlease_billing.domain.excess import MOST_NANO, MOST_NS, excesses, moved_nano, price_nano
from gridlease_billing.domain.grant_row import Ask, GrantRow, Phase, Report, State, Terms
from gridlease_billing.domain.late import LONGEST_LATE_MS
from gridlease_billing.domain.segment import Segment
from gridlease_kernel.money import amount_nano
from hypothesis import given
from hypothesis import strategies as st

SECOND_NS = 10**9
TERMS = Terms()
RATE = st.integers(0, 10**13)
NS = st.integers(0, 10**14)


@given(RATE, st.lists(st.tuples(NS, NS), max_size=8), st.integers(0, 3))
def test_suspense_is_the_last_total_whatever_came_before(rate, words, again):
    segment, known, lies = Segment(1, rate, 0, 0, 60_000), {}, 0
    told = charged = 0
    for said, more in words:
        charged = max(charged, min(more, 60 * SECOND_NS))
        told = max(told, said)
        for _ in range(1 + again):  # what is said again moves nothing
            changed = excesses("a", "t", [segment], known, {1: said}, {1: charged}, "WHY")
            lies += moved_nano(known, changed)
            known |= {it.segment: it for it in changed}
    assert lies == sum(it.open_nano for it in known.values())
    assert lies == price_nano(rate, told, charged)
    assert all(it.excess_ns == max(0, told - charged) for it in known.values())


@given(RATE, NS, NS, st.integers(0, 10**14))
def test_what_is_written_off_comes_back_only_as_it_grows(rate, charged, more, further):
    from dataclasses import replace

    segment = Segment(1, rate, 0, 0, 60_000)
    first = excesses("a", "t", [segment], {}, {1: charged + more}, {1: charged}, "WHY")
    gone = {it.segment: replace(it, written_off_nano=it.amount_nano) for it in first}
    assert moved_nano({it.segment: it for it in first}, gone.values()) == -sum(
        it.open_nano for it in first
    )
    told = charged + more + further
    grown = excesses("a", "t", [segment], gone, {1: told}, {1: charged}, "WHY")
    whole = price_nano(rate, told, charged) - price_nano(rate, charged + more, charged)
    assert moved_nano(gone, grown) == (whole if first or grown else 0)
    # Charged after all: what was written off stays so, and nothing is taken twice.
    paid = excesses("a", "t", [segment], gone, {}, {1: charged + more}, "WHY")
    assert moved_nano(gone, paid) == 0


@given(st.integers(0, 10**18), st.integers(0, 2**62), NS)
def test_a_counter_that_says_anything_fits_into_the_books(rate, told, charged):
    assert 0 <= price_nano(rate, told, charged) <= MOST_NANO
    if charged < told <= charged + MOST_NS:
        exact = amount_nano(rate, told) - amount_nano(rate, charged)
        assert price_nano(rate, told, charged) == min(exact, MOST_NANO)


def _row(state=State.OPEN, counters=None, segments=None, **more):
    segments = segments or (Segment(1, 10, 1, 0, 60_000),)
    ask = Ask("a", tenant="t", node="n")
    return GrantRow(ask, 10, 60_000, state, 60_000, segments, "s1", counters or {}, **more)


def _report(counters, spool="s1"):
    return Report("a", spool, Phase.STARTING, counters=counters, text="x", signature=b"y")


def test_run_time_ahead_of_time_is_believed_as_far_as_time_has_gone():
    word = heard(_report({(1, "run"): 50 * SECOND_NS}), _row(), 5_000, TERMS)
    assert word.proofs[0].counts[0] == 7 * SECOND_NS
    assert word.told_ns == {1: 50 * SECOND_NS}
    assert set(word.doubts) == {AHEAD_OF_TIME}


def test_a_segment_that_is_over_proves_no_more_run_time():
    segments = (Segment(1, 10, 1, 0, 60_000, 9 * SECOND_NS), Segment(2, 20, 2, 9_000, 60_000))
    row = _row(counters={(1, "run"): 9 * SECOND_NS, (2, "run"): SECOND_NS}, segments=segments)
    word = heard(_report({(1, "run"): 20 * SECOND_NS, (1, "egress"): 5}), row, 40_000, TERMS)
    assert word.proofs[0].counts[:2] == (None, 5)
    assert set(word.doubts) == {SEGMENT_OVER}


def test_another_spool_proves_nothing():
    word = heard(_report({(1, "run"): SECOND_NS}, spool="s2"), _row(), 5_000, TERMS)
    assert (word.proofs, word.told_ns, set(word.doubts)) == ((), {}, {SPOOL_MISMATCH})


def test_late_words_stand_apart_and_too_late_ones_prove_no_charge():
    row = _row(State.FINAL, {(1, "run"): 5 * SECOND_NS})
    counters = {(1, "run"): 9 * SECOND_NS}
    assert heard(_report(counters), row, 70_000, TERMS).proofs[0].part == "late/70000"
    after_ms = 60_000 + LONGEST_LATE_MS + 1
    word = heard(_report(counters), row, after_ms, TERMS)
    assert (word.proofs[0].part, set(word.doubts)) == ("late/over", {TOO_LATE})
