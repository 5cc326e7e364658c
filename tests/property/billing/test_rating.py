"""Rating is a function of totals: order, copies, loss and slicing of reports change nothing."""

import random
from dataclasses import replace
from fractions import Fraction

from gridlease_billing.domain import grant
from gridlease_billing.domain.grant_row import Ask, Funds, Phase, Quote, Report, State, Terms
from gridlease_billing.domain.price import Price, in_force, nano_of
from gridlease_billing.domain.usage import Stored, lines
from hypothesis import given
from hypothesis import strategies as st

TERMS = Terms(grant_ms=60_000)
RICH = Funds(10**18)
rates = st.integers(0, 10**13)
spans = st.lists(st.integers(0, 50_000_000_000), min_size=1, max_size=12)


def _open(rate):
    ask = Ask("a", notice_ms=10_000)
    (row,) = grant.authorize({}, [ask], {"a": Quote(rate)}, RICH, 0, TERMS).rows
    return _settle(row, 0, rate, phase=Phase.KNOWN)[0]


def _settle(row, ran_ns, rate, *, now_ms=0, phase=Phase.STARTING, final=False):
    counters = {(1, "run"): ran_ns}
    report = Report("a", "s", phase, final, counters if ran_ns else {})
    settled = grant.settle([row], {"a": report}, {"a": Quote(rate)}, RICH, now_ms, TERMS)
    return settled.rows[0], settled.effects[0]


@given(rates, spans, st.randoms(use_true_random=False))
def test_any_slicing_order_and_copies_charge_the_same(rate, slices, chance):
    totals = [sum(slices[: n + 1]) for n in range(len(slices))]
    whole, _ = _settle(_open(rate), totals[-1], rate)
    sent = totals + [chance.choice(totals) for _ in range(3)]
    chance.shuffle(sent)
    row, posted = _open(rate), 0
    for total in sent:
        row, effect = _settle(row, total, rate)
        posted += effect.charge_nano
    assert posted == row.charged_nano == whole.charged_nano
    assert row.counters == whole.counters


@given(rates, st.integers(0, 2**58))
def test_a_charge_is_within_one_atom_of_the_exact_product_and_never_above(rate, ran_ns):
    row, _ = _settle(_open(rate), ran_ns, rate)
    exact = Fraction(rate * min(ran_ns, 60_000_000_000), 3_600_000_000_000)
    assert exact - 1 < row.charged_nano <= exact


@given(rates, spans)
def test_holds_cover_whatever_may_still_come(rate, slices):
    row = _open(rate)
    wallet = row.held_nano
    for total in (sum(slices[: n + 1]) for n in range(len(slices))):
        row, effect = _settle(row, total, rate)
        wallet -= effect.charge_nano
        assert row.held_nano <= wallet


@given(rates, st.integers(0, 2**58), st.integers(0, 2**58))
def test_lines_are_the_charge_also_after_late_usage(rate, ran_ns, late_ns):
    row, _ = _settle(_open(rate), ran_ns, rate, phase=Phase.CLEAN, final=True)
    assert row.state is State.FINAL
    later, effect = _settle(row, late_ns, rate, phase=Phase.CLEAN)
    assert effect == replace(effect, charge_nano=0, hold_nano=0, suspense_ns=0)
    assert effect.late_ns == max(0, late_ns - ran_ns)
    assert sum(line.amount_nano for line in lines(Stored(later, 0, 0))) == row.charged_nano


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12), st.integers(0, 9))
def test_the_price_in_force_does_not_hang_on_order(entries, now_ms):
    book = [
        Price(version, "c", "SPOT", nano, effective_ms, 0)
        for version, (effective_ms, nano) in enumerate(entries, start=1)
    ]
    shuffled = list(book)
    random.Random(0).shuffle(shuffled)
    found = in_force(book, now_ms)
    assert found == in_force(shuffled, now_ms)
    assert (found is None) == all(it.effective_ms > now_ms for it in book)


@given(st.integers(0, 10**18))
def test_decimals_are_read_exactly(nano):
    assert nano_of(f"{nano // 10**9}.{nano % 10**9:09d}") == nano
