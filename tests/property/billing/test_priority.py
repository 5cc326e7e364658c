"""A priority's part and its base add up to the whole, to the atom, however it is sliced."""

import pytest
from gridlease_billing.domain.grant_row import Ask, GrantRow, State
from gridlease_billing.domain.price import Price, quote
from gridlease_billing.domain.priority import (
    METER,
    Band,
    PriorityTable,
    permille_of,
    priority_part,
    surcharge_of,
    wrong,
)
from gridlease_billing.domain.segment import Segment
from gridlease_billing.domain.usage import Stored, lines, wholes
from gridlease_kernel.money import amount_nano
from hypothesis import given
from hypothesis import strategies as st

rates = st.integers(0, 10**12)
spans = st.integers(0, 10**15)
permilles = st.integers(0, 10_000)
HOUR_NS = 3_600_000_000_000


@given(rates, permilles, st.lists(spans, max_size=20))
def test_the_two_lines_are_the_whole_for_any_slicing(base, permille, slices):
    surcharge = surcharge_of(base, permille)
    rate = base + surcharge
    total, basis, extra = 0, 0, 0
    for ns in slices:
        before, total = total, total + ns
        basis += amount_nano(base, total) - amount_nano(base, before)
        extra += priority_part(rate, surcharge, total) - priority_part(rate, surcharge, before)
    assert basis + extra == amount_nano(rate, total)
    exact = surcharge * total  # in nano x ns an hour
    assert abs(extra * HOUR_NS - exact) < HOUR_NS, "within an atom of its share"


@given(rates, permilles)
def test_a_rate_is_the_base_times_its_multiplier_never_more(base, permille):
    rate = base + surcharge_of(base, permille)
    assert rate >= 0
    assert rate * 1_000 <= base * permille < (rate + 1) * 1_000


@given(
    st.lists(st.tuples(st.integers(1, 100), permilles), unique_by=lambda it: it[0], max_size=8),
    permilles,
    st.integers(0, 100),
)
def test_a_band_holds_from_its_priority_to_the_next(later, first, priority):
    bands = (Band(0, first), *(Band(*it) for it in sorted(later)))
    assert not wrong(bands)
    table = PriorityTable(1, bands, 0, 0)
    known = {p: m for p, m in [(0, first), *sorted(later)] if p <= priority}
    assert permille_of(table, priority) == known[max(known)]


@pytest.mark.parametrize(
    "bands",
    [(), (Band(1, 1_000),), (Band(0, 1_000), Band(0, 2_000)), (Band(0, -1),), (Band(0, 10_001),),
     (Band(0, 1_000), Band(60, 1), Band(50, 1)), (Band(0, 1_000), Band(101, 1))],
)  # fmt: skip
def test_what_is_no_table_is_refused(bands):
    assert wrong(bands)


@given(
    st.lists(st.tuples(rates, permilles, st.integers(0, 10**6)), min_size=1, max_size=5),
    st.integers(0, 2**50),
)
def test_a_leases_shown_lines_are_its_charge(parts, ran_ns):
    segments, counters, at = [], {}, 0
    for number, (base, permille, span_ms) in enumerate(parts, start=1):
        extra = surcharge_of(base, permille)
        segments.append(Segment(number, base + extra, 7, at, at + span_ms, None, extra, 3))
        counters[number, "run"] = ran_ns
        at += span_ms
    row = GrantRow(Ask("l"), 0, 0, State.OPEN, at, tuple(segments), counters=counters)
    whole, shown = wholes(Stored(row, 0, 0)), lines(Stored(row, 0, 0))
    assert sum(it.amount_nano for it in shown) == sum(it.amount_nano for it in whole)
    for it in shown:
        mine = segments[it.segment - 1]
        if it.meter == METER:
            assert (it.price_version, it.rate_nano_per_hour) == (3, mine.surcharge_nano_per_hour)
        else:
            assert it.amount_nano == amount_nano(it.rate_nano_per_hour, it.charged_ns)


def test_without_a_table_nothing_changes():
    price = Price(5, "c", "SPOT", 3_000, 0, 0)
    plain = quote(price, 1_000, 50)
    assert plain == quote(price, 1_000, 50, None)
    assert (plain.surcharge_nano_per_hour, plain.priority_version) == (0, 0)
    even = quote(price, 1_000, 50, PriorityTable(2, (Band(0, 1_000),), 0, 0))
    assert (even.rate_nano_per_hour, even.surcharge_nano_per_hour) == (3_000, 0)
