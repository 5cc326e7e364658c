"""Burn-down, thresholds and odd days."""

from gridlease_billing.domain.spending import anomaly, burn_down, crossed
from hypothesis import given
from hypothesis import strategies as st

UNIT = 10**9


def test_money_lasts_as_long_as_its_rate_says():
    assert burn_down(10 * UNIT, [2 * UNIT, 3 * UNIT]).lasts_ms == 2 * 3_600_000
    assert burn_down(10 * UNIT, []).lasts_ms is None
    assert burn_down(-1, [1]).lasts_ms == 0


@given(
    st.lists(st.integers(1, 2_000), max_size=6),
    st.integers(1, 10**12),
    st.lists(st.integers(0, 10**12), max_size=8),
)
def test_each_threshold_is_crossed_once(thresholds, budget, steps):
    told, spent = [], 0
    for step in steps:
        told += crossed(thresholds, budget, spent, spent + step)
        spent += step
    assert told == sorted(told)
    assert told == crossed(thresholds, budget, 0, spent)


def test_an_odd_day_is_told_and_a_calm_or_new_tenant_is_not():
    days = [9 * UNIT, 10 * UNIT, 11 * UNIT, 10 * UNIT, 9 * UNIT, 10 * UNIT, 12 * UNIT]
    found = anomaly(days, 40 * UNIT)
    assert found is not None
    assert found.usual_nano == 10 * UNIT
    assert anomaly(days, 14 * UNIT) is None
    assert anomaly(days, 0) is None
    assert anomaly(days[:6], 40 * UNIT) is None
    assert anomaly([0] * 30, UNIT // 2) is None
    assert anomaly([0] * 30, 2 * UNIT) is not None


def test_one_odd_day_does_not_hide_the_next():
    days = [10 * UNIT] * 13 + [400 * UNIT]
    assert anomaly(days, 400 * UNIT) is not None
