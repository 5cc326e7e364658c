"""Which tax an invoice bears: by where seller and buyer are, and by what the buyer is.

The table of rates is data, with the time from which each holds; these rules only choose from it.
A tax is computed once on the document's total, never line by line.
Source: Council Directive 2006/112/EC, articles 44, 58 and 196 (services to businesses, electronic
services to others, and who owes the tax); outside the union only the seller's own country taxes.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from gridlease_kernel.faults import Precondition

PERMYRIAD = 10_000
# Member states of the European Union, by ISO 3166 (Greece is EL in tax numbers, GR here).
UNION = frozenset(
    [
        "AT",
        "BE",
        "BG",
        "CY",
        "CZ",
        "DE",
        "DK",
        "EE",
        "ES",
        "FI",
        "FR",
        "GR",
        "HR",
        "HU",
        "IE",
        "IT",
        "LT",
        "LU",
        "LV",
        "MT",
        "NL",
        "PL",
        "PT",
        "RO",
        "SE",
        "SI",
        "SK",
    ]
)


class Treatment(enum.StrEnum):
    """How the tax stands on the invoice."""

    STANDARD = "STANDARD"  # the seller charges it
    REVERSE_CHARGE = "REVERSE_CHARGE"  # the buyer owes it; the invoice must say so
    OUTSIDE = "OUTSIDE"  # not taxed where the seller is
    NONE = "NONE"  # the seller charges no tax at all


@dataclass(frozen=True, slots=True)
class Seller:
    """The legal entity that issues. ``tax_id`` empty = it is not registered and charges none."""

    country: str
    tax_id: str = ""


@dataclass(frozen=True, slots=True)
class Buyer:
    """The tenant as its tax office knows it. ``tax_id``: checked before it came here."""

    country: str = ""
    tax_id: str = ""


@dataclass(frozen=True, slots=True)
class TaxRate:
    """One entry of the table: in force from ``effective_ms`` until a later one of that country."""

    country: str
    name: str  # "VAT", "GST"
    permyriad: int
    effective_ms: int

    def __post_init__(self) -> None:
        """A rate lies between nothing and everything."""
        assert 0 <= self.permyriad <= PERMYRIAD, self


@dataclass(frozen=True, slots=True)
class Tax:
    """What was decided, and the words that the invoice has for it."""

    treatment: Treatment
    country: str = ""
    name: str = ""
    permyriad: int = 0
    note: str = ""


def decide(seller: Seller, buyer: Buyer, table: Iterable[TaxRate], at_ms: int) -> Tax:
    """The tax of an invoice issued at ``at_ms``.

    Raises:
        Precondition: NO_TAX_RATE where one is owed in a country that the table does not know.
    """
    if not seller.tax_id:
        return Tax(Treatment.NONE, note="No tax is charged: the issuer is not registered for it.")
    here = buyer.country or seller.country
    if here == seller.country:
        return _charged(here, table, at_ms)
    if seller.country not in UNION or here not in UNION:
        return Tax(Treatment.OUTSIDE, here, note=f"Not taxed in {seller.country}.")
    if buyer.tax_id:
        note = "Reverse charge: the tax is owed by the recipient (Directive 2006/112/EC, art. 196)."
        return Tax(Treatment.REVERSE_CHARGE, here, note=note)
    return _charged(here, table, at_ms)


def _charged(country: str, table: Iterable[TaxRate], at_ms: int) -> Tax:
    begun = [rate for rate in table if rate.country == country and rate.effective_ms <= at_ms]
    rate = max(begun, key=lambda each: each.effective_ms, default=None)
    if rate is None:
        raise Precondition(
            f"There is no tax rate for {country}.",
            reason="NO_TAX_RATE",
            field="country",
            remedy="Add it to the tax table, with the day from which it holds.",
        )
    return Tax(Treatment.STANDARD, country, rate.name, rate.permyriad)


def tax_of(net_nano: int, permyriad: int, step_nano: int) -> int:
    """The tax on a document's net total, to the currency's minor unit, half away from zero.

    >>> tax_of(10_050_000_000, 1_900, 10_000_000)
    1910000000
    """
    assert net_nano % step_nano == 0, net_nano
    whole, rest = divmod(abs(net_nano) * permyriad, PERMYRIAD * step_nano)
    rounded = (whole + (2 * rest >= PERMYRIAD * step_nano)) * step_nano
    return -rounded if net_nano < 0 else rounded
