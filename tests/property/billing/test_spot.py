"""The spot price's rule: bounded, monotone, quiet near the target, once a window."""

import itertools

from gridlease_billing.domain.carbon import SitePower
from gridlease_billing.domain.spot import (
    ChipUse,
    LastMove,
    SpotPolicy,
    due,
    floor_nano,
    moved,
)
from hypothesis import assume, given
from hypothesis import strategies as st

POLICY = SpotPolicy()
prices = st.integers(1, 10**15)
fills = st.integers(0, 3_000)


def use(full_permille):
    return ChipUse("c", 1_000_000, full_permille * 1_000, 0)


def after(price, on_demand, full):
    found = moved(price, on_demand, use(full), POLICY)
    return price if found is None else found


@given(prices, prices, fills)
def test_a_step_is_two_percent_at_most_or_one_nano(price, on_demand, full):
    assert abs(after(price, on_demand, full) - price) <= max(1, price * 20 // 1_000)


@given(prices, st.integers(200, 1_000), fills)
def test_it_stays_between_floor_and_on_demand_price(on_demand, share, full):
    price = max(1, on_demand * share // 1_000)
    found = after(price, on_demand, full)
    assert on_demand * 200 // 1_000 <= found <= on_demand


@given(prices, prices, fills, fills)
def test_a_fuller_chip_is_never_cheaper(price, on_demand, one, other):
    less, more = sorted((one, other))
    assert after(price, on_demand, less) <= after(price, on_demand, more)


@given(prices, st.integers(200, 1_000), st.integers(850, 950))
def test_near_the_target_nothing_moves(on_demand, share, full):
    price = max(1, on_demand * share // 1_000)
    assert moved(price, on_demand, use(full), POLICY) is None


@given(prices, prices, fills)
def test_a_price_set_outside_comes_back_however_full(price, on_demand, full):
    assume(not on_demand * 200 // 1_000 <= price <= on_demand)
    found = after(price, on_demand, full)
    nearest = min(max(price, on_demand * 200 // 1_000), on_demand)
    assert abs(found - nearest) < abs(price - nearest)


@given(st.lists(st.tuples(st.integers(0, 90), fills), max_size=60))
def test_no_five_minutes_see_more_than_one_step(reports):
    """Whatever is told, and however often: (seconds since the one before, how full)."""
    now_ms, price, last, history = 10**12, 10**9, None, []
    for pause_s, full in reports:
        now_ms += pause_s * 1_000
        end_ms = now_ms - now_ms % POLICY.window_ms
        for _ in range(2):  # each told twice
            if not due(last, end_ms, now_ms, POLICY):
                continue
            found = moved(price, 2 * 10**9, use(full), POLICY)
            if found is not None:
                price, last = found, LastMove(POLICY.window(end_ms), now_ms)
                history.append((last.window, now_ms))
    windows = [window for window, _ in history]
    assert len(windows) == len(set(windows))
    times = [ms for _, ms in history]
    assert all(b - a >= POLICY.apart_ms for a, b in itertools.pairwise(times))


def test_the_default_rule_in_figures():
    dear = 1_000_000_000
    assert after(400_000_000, dear, 1_050) == 408_000_000
    assert after(400_000_000, dear, 1_000) == 404_000_000
    assert after(400_000_000, dear, 0) == 392_000_000
    assert after(999_000_000, dear, 2_000) == dear
    assert after(201_000_000, dear, 0) == 200_000_000


def test_what_never_moves():
    assert moved(0, 10, use(2_000), POLICY) is None
    assert moved(5, 10, ChipUse("c", 0, 0, 5_000), POLICY) is None
    assert not SpotPolicy(fixed=frozenset({"c"})).moves("c")
    assert not SpotPolicy(fixed=frozenset({"*"})).moves("c")
    assert SpotPolicy(fixed=frozenset({"d"})).moves("c")


def test_a_window_that_is_long_over_moves_nothing():
    now_ms = 100 * POLICY.window_ms + 1
    assert due(None, 100 * POLICY.window_ms, now_ms, POLICY)
    assert due(None, 99 * POLICY.window_ms, now_ms, POLICY)
    assert not due(None, 98 * POLICY.window_ms, now_ms, POLICY)


@given(
    prices, st.integers(1, 2_000), st.integers(1_000, 5_000), st.integers(0, 10**9), fills,
    st.integers(0, 10**14),
)  # fmt: skip
def test_a_sites_floor_is_power_and_wear_and_its_cap_is_on_demand(
    on_demand, watts, pue_milli, kwh_nano, full, now_ms
):
    power = SitePower(pue_milli, (), tuple(kwh_nano + hour for hour in range(24)))
    at_site = ChipUse("c", 1_000_000, full * 1_000, 0, "sites/a", watts, power)
    floor = floor_nano(on_demand, at_site, POLICY, now_ms)
    exact = watts * pue_milli * (kwh_nano + now_ms // 3_600_000 % 24)  # millionths of nano-units
    wear = on_demand * POLICY.wear_permille // 1_000
    assert floor == min(on_demand, -(-exact // 1_000_000) + wear)
    price = max(1, floor)
    found = moved(price, on_demand, at_site, POLICY, floor)
    assert floor <= (price if found is None else found) <= max(on_demand, price)


def test_where_power_is_not_known_the_floor_is_a_share():
    power = SitePower(1_200)
    for at_site in (use(0), ChipUse("c", 1, 0, 0, "s", 700, power), ChipUse("c", 1, 0, 0, "s", 0)):
        assert floor_nano(1_000, at_site, POLICY, 0) == 200


def test_an_h100_hour_at_ten_cents_a_kilowatt_hour():
    power = SitePower(1_200, (), (100_000_000,))
    at_site = ChipUse("H100-80GB", 8_000, 0, 0, "sites/a", 700, power)
    assert floor_nano(2_990_000_000, at_site, POLICY, 0) == 84_000_000 + 149_500_000
