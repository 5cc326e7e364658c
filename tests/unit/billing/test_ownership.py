"""Own or rent: the figures of a public price list, and what must hold for any."""

import pytest
from gridlease_billing.domain.ownership import OwnedNode, compare, year_of
from hypothesis import given
from hypothesis import strategies as st

NANO = 10**9
H100_NODE = OwnedNode(
    price_nano=320_000 * NANO,
    devices=8,
    years=3,
    residual_permille=300,
    power_w=10_200,
    energy_nano_per_kwh=NANO // 10,
    pue_permille=1_200,
    hosting_nano_per_kw_month=200 * NANO,
    upkeep_permille=80,
)


def test_a_year_adds_up():
    year = year_of(H100_NODE)
    assert year.capital_nano == 74_666_666_666_666
    assert year.energy_nano == 10_722_240_000_000
    assert year.hosting_nano == 24_480 * NANO
    assert year.upkeep_nano == 25_600 * NANO


@pytest.mark.parametrize(
    ("rent_cents", "flips_at"), [(199, 972), (269, 719), (399, 485), (688, 281), (1229, 158)]
)
def test_the_use_at_which_the_answer_flips(rent_cents, flips_at):
    found = compare(H100_NODE, rent_cents * NANO // 100)
    assert found.owned_nano_per_hour // 10_000_000 == 193
    assert found.flips_at_permille == flips_at
    assert found.ever


def test_a_little_used_node_saves_much_by_renting_and_a_busy_one_nothing():
    found = compare(H100_NODE, 269 * NANO // 100)
    assert found.saved_permille(128) >= 820  # 94 hours a month
    assert found.saved_permille(1_000) < -380


@given(
    st.integers(1, 10**15),
    st.integers(1, 64),
    st.integers(1, 10),
    st.integers(0, 1_000),
    st.integers(0, 50_000),
    st.integers(1, 10**12),
)
def test_at_the_flip_both_cost_the_same(price, devices, years, residual, watts, rent):
    node = OwnedNode(price, devices, years, residual, watts, NANO // 5, 1_500, NANO, 50)
    found = compare(node, rent)
    if 0 < found.flips_at_permille <= 1_000:
        assert found.owned_at(found.flips_at_permille) <= rent
    if 1 < found.flips_at_permille <= 1_001:
        assert found.owned_at(found.flips_at_permille - 1) > rent
