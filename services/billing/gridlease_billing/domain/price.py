"""The price book: which price is in force, and what a lease costs at it.

Each version of the book is a period of its own (``Quote.period``), so a renewal after a change of
price opens a new segment, and each segment names the version that set its rate.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gridlease_kernel.money import NANO, rate_nano_per_hour

from gridlease_billing.domain.grant_row import Quote

CURRENCY = "USD"


class Tier(enum.StrEnum):
    """How capacity is bought."""

    RESERVED = "RESERVED"
    ON_DEMAND = "ON_DEMAND"
    SPOT = "SPOT"


# What a tier costs of the on-demand price, in per mille, where the defaults name no own price.
DEFAULT_PERMILLE: Mapping[Tier, int] = {Tier.ON_DEMAND: 1_000, Tier.RESERVED: 700, Tier.SPOT: 400}


@dataclass(frozen=True, slots=True)
class Price:
    """One entry of the book. Times: database clock, ms."""

    version: int
    chip: str
    tier: str
    price_nano_per_hour: int
    effective_ms: int
    recorded_ms: int
    currency: str = CURRENCY


@dataclass(frozen=True, slots=True)
class NewPrice:
    """An entry to write; ``effective_ms`` None = from now on."""

    chip: str
    tier: str
    price_nano_per_hour: int
    effective_ms: int | None
    request_id: str


def in_force(prices: Iterable[Price], now_ms: int) -> Price | None:
    """Of the prices of one chip and tier, the one in force at ``now_ms``."""
    begun = [price for price in prices if price.effective_ms <= now_ms]
    return max(begun, key=lambda price: (price.effective_ms, price.version), default=None)


def quote(price: Price, quantity_milli: int) -> Quote:
    """What ``quantity_milli`` thousandths of the priced unit cost at a price."""
    return Quote(rate_nano_per_hour(price.price_nano_per_hour, quantity_milli), price.version)


def nano_of(decimal: str) -> int:
    """Nano-units of a decimal such as ``"2.69"``, exactly.

    >>> nano_of("0.048")
    48000000
    """
    whole, _, part = decimal.partition(".")
    assert whole.isdecimal(), decimal
    assert len(part) <= 9, decimal
    return int(whole) * NANO + int(part.ljust(9, "0") or "0")


def defaults(on_demand: Mapping[str, str]) -> list[NewPrice]:
    """The entries of a table chip -> hourly on-demand price, for every tier."""
    return [
        NewPrice(
            chip, tier, nano_of(decimal) * permille // 1_000, None, f"default/{chip}/{tier.value}"
        )
        for chip, decimal in sorted(on_demand.items())
        for tier, permille in DEFAULT_PERMILLE.items()
    ]
