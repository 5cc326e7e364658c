"""Rating: any slicing sums to the whole, and no line is off by more than an atom."""

from fractions import Fraction

from gridlease_billing.domain.meter_price import cost, grown, shown
from gridlease_billing.domain.rating import Step, Tariff, price_of
from gridlease_billing.domain.supplier import Contract, Split, posted, split
from hypothesis import given
from hypothesis import strategies as st

SLICES = st.lists(st.integers(0, 10**15), max_size=30)


@st.composite
def tariffs(draw):
    starts = sorted({0, *draw(st.lists(st.integers(1, 10**16), max_size=4))})
    steps = tuple(Step(start, draw(st.integers(0, 10**10))) for start in starts)
    return Tariff(steps, draw(st.integers(1, 10**13)), draw(st.integers(0, 10**12)))


@given(tariffs(), SLICES)
def test_any_slicing_sums_to_the_whole(tariff, slices):
    total = charged = 0
    for each in slices:
        charged += grown(tariff, total, each)
        total += each
    assert charged == cost(tariff, total)


@given(tariffs(), SLICES)
def test_what_is_shown_of_it_sums_to_it_and_free_units_are_counted_once(tariff, slices):
    total = free = minimum = stepped = 0
    for each in slices:
        parts = shown(tariff, total, each)
        assert parts.stepped_nano + parts.minimum_nano == grown(tariff, total, each)
        assert parts.stepped_nano >= 0
        assert 0 <= parts.free <= each
        total += each
        free, minimum = free + parts.free, minimum + parts.minimum_nano
        stepped += parts.stepped_nano
        assert minimum >= 0, "a minimum is never set off twice"
    assert minimum == (max(0, tariff.minimum_nano - stepped) if total else 0)
    first, *later = tariff.steps
    quota = later[0].above if later and not first.price_nano else 0
    assert free == min(total, quota)


@given(tariffs(), st.integers(0, 10**16), st.integers(0, 10**15))
def test_more_never_costs_less(tariff, total, more):
    assert 0 <= price_of(tariff, total) <= price_of(tariff, total + more)


@given(st.integers(0, 10**12), st.integers(1, 10**13), st.integers(0, 10**16))
def test_a_price_is_within_an_atom_of_the_exact_one(price, per, quantity):
    found = price_of(Tariff((Step(0, price),), per), quantity)
    assert 0 <= Fraction(quantity * price, per) - found < 1


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
