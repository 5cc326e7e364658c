"""Own or rent: against published figures, by hand, and at the edges."""

from fractions import Fraction

import pytest
from gridlease_kernel.money import NANO
from gridlease_simulate.owning import (
    USES_PERCENT,
    Purchase,
    Rental,
    flips,
    lost_ppm,
    owned,
    spot_useful_nano,
)
from gridlease_simulate.ownreport import figures, sections, verdicts

EIGHT_H100 = Purchase(
    price_nano=320_000 * NANO,
    devices=8,
    years_milli=3_000,
    residual_percent=30,
    busy_watts=10_200,
    idle_watts=10_200,
    pue_milli=1_200,
    energy_nano_per_kwh=NANO // 10,
    hosting_nano_per_kw_month=200 * NANO,
    operations_percent_milli=8_000,
)


def test_an_owned_hour_by_hand():
    own = owned(EIGHT_H100)
    by_hand = (
        Fraction(320_000 * 70, 100 * 3 * 8_760 * 8)
        + Fraction(320_000 * 8, 100 * 8_760 * 8)
        + Fraction(10_200 * 200 * 12, 1_000 * 8_760 * 8)
        + Fraction(10_200 * 12, 10 * 1_000 * 10 * 8)
    )
    assert abs(own.fixed_nano - by_hand * NANO) <= len(own.fixed)
    assert own.busy.nano == 0
    assert f"{own.fixed_nano / NANO:.2f}" == "1.93"


@pytest.mark.parametrize(
    ("use", "dollars"), [(20, 9.67), (40, 4.83), (60, 3.22), (70, 2.76), (85, 2.27)]
)
def test_a_useful_hour_at_several_uses(use, dollars):
    assert round(owned(EIGHT_H100).useful_nano(use) / NANO, 2) == dollars


@pytest.mark.parametrize(
    ("rent", "use"),
    [("1.99", 0.97), ("2.69", 0.72), ("3.99", 0.48), ("6.88", 0.28), ("12.29", 0.16)],
)  # fmt: skip
def test_where_the_answer_flips(rent, use):
    (flip,) = flips(owned(EIGHT_H100), Rental(on_demand_nano=int(Fraction(rent) * NANO)))
    assert flip.verdict == "flips"
    assert round(flip.use_ppm / 1e6, 2) == use
    assert "=" in flip.arithmetic


def test_on_both_sides_of_the_flip_the_cheaper_one_changes():
    saving = Purchase(
        **{name: getattr(EIGHT_H100, name) for name in EIGHT_H100.__slots__} | {"idle_watts": 2_000}
    )
    own, rent = owned(saving), 3 * NANO
    (flip,) = flips(own, Rental(on_demand_nano=rent))
    hour = lambda ppm: own.fixed_nano + own.busy.nano * ppm / 1e6 - rent * ppm / 1e6  # noqa: E731
    assert own.busy.nano > 0
    assert hour(flip.use_ppm - 10) > 0 > hour(flip.use_ppm + 10)


def test_renting_below_the_energy_is_cheaper_at_any_use():
    cold = Purchase(
        **{name: getattr(EIGHT_H100, name) for name in EIGHT_H100.__slots__} | {"idle_watts": 0}
    )
    own = owned(cold)
    (flip,) = flips(own, Rental(on_demand_nano=own.busy.nano))
    assert flip.verdict == "rent"
    (flip,) = flips(owned(EIGHT_H100), Rental(on_demand_nano=NANO))
    assert (flip.verdict, flip.use_ppm > 1_000_000) == ("rent", True)


def test_spot_pays_for_the_work_that_interruptions_lose():
    # 5 x (7.5 min + 5 min) in 6,000 minutes = 1.0417 %.
    rental = Rental(spot_nano=NANO)
    assert lost_ppm(rental) == 10_417
    assert spot_useful_nano(rental) == round(NANO / (1 - Fraction(10_417, 1_000_000)))


def test_reserved_is_paid_used_or_not():
    own = owned(EIGHT_H100)
    assert flips(own, Rental(reserved_nano=own.fixed_nano))[0].verdict == "own"
    assert flips(own, Rental(reserved_nano=own.fixed_nano - 1))[0].verdict == "rent"


def test_tables_and_words_say_the_same_as_the_figures():
    rental = Rental(on_demand_nano=2_690_000_000, reserved_nano=2 * NANO, spot_nano=NANO)
    items, uses = sections(EIGHT_H100, rental)
    assert items.rows[-1][1] == "1.9331"
    assert uses.heads == ("USE", "HOURS A MONTH", "OWNED", "ON DEMAND", "RESERVED", "SPOT")
    assert len(uses.rows) == len(USES_PERCENT)
    for row in uses.rows:
        assert sum(cell.endswith("*") for cell in row) >= 1
    found = figures(EIGHT_H100, rental)
    assert found["useful_hour_nano"]["50"]["reserved"] == 4 * NANO
    assert all(isinstance(item["nano_per_hour"], int) for item in found["items"])
    words = verdicts(EIGHT_H100, rental)
    assert any("owning is cheaper above 71.9 % use" in line for line in words)
    assert any("reserved is cheaper above 74.3 %" in line for line in words)
