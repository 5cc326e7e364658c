"""Carbon: energy is split exactly; the sum lies between the cleanest and the dirtiest hour."""

from gridlease_billing.domain.carbon import HOUR_MS, Embodied, SitePower, by_hour, footprint
from hypothesis import given
from hypothesis import strategies as st

KWH_MJ = 3_600_000_000


@given(st.integers(0, 10**14), st.integers(0, 10**13), st.integers(0, 90 * HOUR_MS))
def test_the_hours_sum_to_the_whole(energy, start, span):
    hours, parts = by_hour(energy, start, span)
    assert sum(parts) == energy
    assert min(parts) >= 0
    assert all(0 <= hour < 24 for hour in hours)


@given(
    st.integers(0, 10**13),
    st.integers(0, 10**13),
    st.integers(0, 60 * HOUR_MS),
    st.lists(st.integers(0, 10**6), min_size=24, max_size=24),
    st.integers(1_000, 3_000),
)
def test_it_lies_between_the_best_and_the_worst_hour(energy, start, span, table, pue):
    found = footprint(energy, start, span, SitePower(pue, tuple(table)))
    assert found.operational_mg is not None
    scale = 1_000 * KWH_MJ
    assert min(table) * energy * pue // scale <= found.operational_mg
    assert found.operational_mg <= max(table) * energy * pue // scale


def test_an_hour_of_an_h100_at_400_grams():
    site = SitePower(1_200, (400_000,), (100_000_000,))
    card = Embodied(150_000, 5 * 8_760, 500, "an estimate, for the test")
    found = footprint(700 * 3_600_000, 0, HOUR_MS, site, card)
    assert found.site_mj == 840 * 3_600_000
    assert found.operational_mg == 336_000
    assert found.embodied_mg == 150_000 * 1_000 // (5 * 8_760)
    assert found.energy_nano == 84_000_000
    assert found.carbon_mg == 336_000 + found.embodied_mg


def test_what_is_not_known_is_not_nothing():
    found = footprint(10, 0, 10, SitePower(1_000))
    assert (found.operational_mg, found.carbon_mg, found.energy_nano) == (None, None, None)
