"""Taxes by place and by kind of buyer."""

import pytest
from gridlease_billing.domain.tax import Buyer, Seller, TaxRate, Treatment, decide, tax_of
from gridlease_kernel.faults import Precondition

CENT = 10_000_000
TABLE = [
    TaxRate("DE", "VAT", 1_600, 0),
    TaxRate("DE", "VAT", 1_900, 1_000),
    TaxRate("FR", "VAT", 2_000, 0),
    TaxRate("CH", "VAT", 810, 0),
]
GERMAN = Seller("DE", "DE123456789")


@pytest.mark.parametrize(
    ("seller", "buyer", "treatment", "permyriad"),
    [
        (GERMAN, Buyer("DE"), Treatment.STANDARD, 1_900),
        (GERMAN, Buyer(), Treatment.STANDARD, 1_900),
        (GERMAN, Buyer("DE", "DE987654321"), Treatment.STANDARD, 1_900),
        (GERMAN, Buyer("FR"), Treatment.STANDARD, 2_000),
        (GERMAN, Buyer("FR", "FR12345678901"), Treatment.REVERSE_CHARGE, 0),
        (GERMAN, Buyer("US"), Treatment.OUTSIDE, 0),
        (Seller("CH", "CHE-1"), Buyer("CH"), Treatment.STANDARD, 810),
        (Seller("CH", "CHE-1"), Buyer("DE", "DE1"), Treatment.OUTSIDE, 0),
        (Seller("DE"), Buyer("DE"), Treatment.NONE, 0),
    ],
)
def test_who_pays_what(seller, buyer, treatment, permyriad):
    tax = decide(seller, buyer, TABLE, 2_000)
    assert (tax.treatment, tax.permyriad) == (treatment, permyriad)
    assert bool(tax.note) == (treatment is not Treatment.STANDARD)


def test_the_rate_is_that_of_the_day():
    assert decide(GERMAN, Buyer("DE"), TABLE, 999).permyriad == 1_600
    assert decide(GERMAN, Buyer("DE"), TABLE, 1_000).permyriad == 1_900


def test_an_unknown_country_is_named():
    with pytest.raises(Precondition) as told:
        decide(GERMAN, Buyer("IT"), TABLE, 0)
    assert told.value.reason == "NO_TAX_RATE"
    assert "IT" in str(told.value)


@pytest.mark.parametrize(
    ("cents", "permyriad", "tax_cents"),
    [(1_005, 1_900, 191), (0, 1_900, 0), (250, 1_000, 25), (5, 1_000, 1), (-5, 1_000, -1)],
)
def test_the_tax_is_rounded_once_half_away_from_zero(cents, permyriad, tax_cents):
    assert tax_of(cents * CENT, permyriad, CENT) == tax_cents * CENT
