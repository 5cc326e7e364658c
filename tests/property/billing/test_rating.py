"""Rating: any slicing sums to the whole, and no line is off by more than an atom."""

from fractions import Fraction

from gridlease_billing.domain.rating import (
    Step,
    Tariff,
    flat,
    lines_of,
    minimum_line,
    multiplier,
    price_of,
    surcharge_nano,
)
from gridlease_billing.domain.supplier import Contract, Split, posted, split
from hypothesis import given
from hypothesis import strategies as st

SLICES = st.lists(st.integers(0, 10**15), max_size=30)


@st.composite
def tariffs(draw):
    starts = sorted({0, *draw(st.lists(st.integers(1, 10**16), max_size=4))})
    steps = tuple(Step(start, draw(st.integers(0, 10**10))) for start in starts)
    return Tariff(steps, draw(st.integers(1, 10**13)), draw(st.integers(0, 10**12)))


@given(tariffs(), SLICES, st.integers(0, 10**12))
def test_any_slicing_sums_to_the_whole(tariff, slices, before):
    lines = lines_of(tariff, slices, before)
    assert min(lines, default=0) >= 0
    total = before + sum(slices)
    assert sum(lines) == price_of(tariff, total) - price_of(tariff, before)


@given(st.integers(0, 10**12), st.integers(1, 10**13), SLICES)
def test_a_line_is_within_an_atom_of_its_exact_price(price, per, slices):
    for quantity, amount in zip(slices, lines_of(flat(price, per), slices), strict=True):
        assert abs(amount - Fraction(quantity * price, per)) < 1


@given(tariffs(), st.integers(0, 10**16))
def test_a_period_costs_its_minimum_or_its_usage(tariff, total):
    usage = price_of(tariff, total)
    assert usage + minimum_line(tariff, total) == max(usage, tariff.minimum_nano)


@given(st.lists(st.integers(0, 10**12), max_size=20), st.integers(500, 3_000))
def test_a_multipliers_slices_sum_to_the_whole(slices, permille):
    total, added = 0, 0
    for each in slices:
        added += surcharge_nano(total, total + each, permille)
        total += each
    assert added == total * (permille - 1_000) // 1_000


def test_a_priority_takes_the_last_step_it_reaches():
    table = [(0, 1_000), (50, 1_200), (80, 1_500)]
    assert [multiplier(table, at) for at in (0, 49, 50, 100)] == [1_000, 1_000, 1_200, 1_500]


@given(
    st.lists(st.integers(0, 10**12), max_size=20),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
)
def test_a_suppliers_slices_sum_to_its_part_of_the_whole(slices, share, holdback):
    contract = Contract("s", 1, share, holdback, 30)
    total, got = 0, Split(0, 0, 0)
    for each in slices:
        more = posted(contract, total, total + each)
        assert more.total_nano == each
        got = Split(
            got.revenue_nano + more.revenue_nano,
            got.payable_nano + more.payable_nano,
            got.holdback_nano + more.holdback_nano,
        )
        total += each
    assert got == split(contract, total)
    assert min(got.revenue_nano, got.payable_nano, got.holdback_nano) >= 0
