"""Carbon: energy is split exactly; the sum lies between the cleanest and the dirtiest hour."""

from gridlease_billing.domain.carbon import HOUR_MS, Embodied, SitePower, by_hour, footprint
from gridlease_billing.domain.energy_use import Draw, Range, total, use_of
from gridlease_billing.domain.footprint_line import Telling, Told, beyond
from gridlease_billing.domain.invoice_rows import shared
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


@given(
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.lists(st.integers(0, 30 * HOUR_MS), min_size=1, max_size=5),
    st.integers(1, 64_000),
    st.integers(1_000, 3_000),
)
def test_what_invoices_tell_sums_to_the_whole_for_any_slicing(idle, more, spans, milli, pue):
    draw, made = Draw(idle, idle + more), Embodied(150_000, 35_040, 500, "a study")
    site = SitePower(pue, (431_007,))
    of = Told("l", "j", "n", "s", "c", "SPOT", milli, 0)
    told = []
    for number, span_ms in enumerate(sorted(spans), start=1):
        whole = total(use_of([(0, 7, span_ms)], site, draw, made, milli))
        use = beyond(whole, told)
        assert min(use.energy.low, use.operational.low, use.embodied_mg) >= 0
        told.append(Telling(of, number, 7, 7 + span_ms, use, site, made, ""))
    parts = [it.use for it in told]
    assert sum(it.energy.expected for it in parts) == whole.energy.expected
    assert sum(it.operational.expected for it in parts) == whole.operational.expected
    assert sum(it.embodied_mg for it in parts) == whole.embodied_mg


@given(st.lists(st.integers(0, 10**16), min_size=1, max_size=8), st.integers(0, 10**15))
def test_shares_of_segments_sum_to_the_figure(weights, figure):
    found = shared(weights, figure)
    assert sum(found) == figure
    assert min(found) >= 0
    exact = [figure * max(1, it) for it in weights]
    whole = sum(max(1, it) for it in weights)
    assert all(abs(part * whole - due) < whole for part, due in zip(found, exact, strict=True))


def test_a_range_is_in_order():
    assert Range(2, 1, 3) + Range(2, 1, 3) == Range(4, 2, 6)
    assert Range(4, 2, 6).less(Range(4, 3, 9)) == Range(0, 0, 0)
