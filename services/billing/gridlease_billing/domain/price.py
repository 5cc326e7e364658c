"""The price book: which price is in force, and what a lease costs at it.

Each version of the book is a period of its own (``Quote.period``), so a renewal after a change of
price opens a new segment, and each segment names the version that set its rate. A site's own
price goes before that of everywhere.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from gridlease_kernel.money import NANO, rate_nano_per_hour

from gridlease_billing.domain.book import Span, in_force
from gridlease_billing.domain.grant_row import Quote
from gridlease_billing.domain.priority import PriorityTable, permille_of, surcharge_of

CURRENCY = "USD"
EVERYWHERE = ""
Kind: TypeAlias = tuple[str, str, str]  # chip, tier, site ("" = everywhere)


class Tier(enum.StrEnum):
    """How capacity is bought."""

    RESERVED = "RESERVED"
    ON_DEMAND = "ON_DEMAND"
    SPOT = "SPOT"


# What a tier costs of the on-demand price, in per mille, where the defaults name no own price.
DEFAULT_PERMILLE: Mapping[Tier, int] = {Tier.ON_DEMAND: 1_000, Tier.RESERVED: 700, Tier.SPOT: 400}


@dataclass(frozen=True, slots=True)
class Price:
    """One entry of the book. Times: database clock, ms.

    ``withdrawn``: from then on there is none. ``span``: of the two times, where one was asked for.
    """

    version: int
    chip: str
    tier: str
    price_nano_per_hour: int
    effective_ms: int
    recorded_ms: int
    currency: str = CURRENCY
    site: str = EVERYWHERE
    withdrawn: bool = False
    correction: bool = False
    span: Span | None = None

    @property
    def kind(self) -> Kind:
        return self.chip, self.tier, self.site


@dataclass(frozen=True, slots=True)
class NewPrice:
    """An entry to write; ``effective_ms`` None = from now on, in the past = a correction."""

    chip: str
    tier: str
    price_nano_per_hour: int
    effective_ms: int | None
    request_id: str
    site: str = EVERYWHERE
    withdrawn: bool = False
    correction: bool = False


def price_at(prices: Iterable[Price], kind: Kind, now_ms: int) -> Price | None:
    """The price of a chip and tier at a site at ``now_ms``: its own, or that of everywhere."""
    chip, tier, site = kind
    known = [it for it in prices if (it.chip, it.tier) == (chip, tier)]
    for where in dict.fromkeys((site, EVERYWHERE)):
        found = in_force([it for it in known if it.site == where], now_ms)
        if found is not None and not found.withdrawn:
            return found
    return None


def quote(
    price: Price, quantity_milli: int, priority: int = 0, table: PriorityTable | None = None
) -> Quote:
    """What ``quantity_milli`` thousandths of the priced unit cost at a price and a priority."""
    base = rate_nano_per_hour(price.price_nano_per_hour, quantity_milli)
    if table is None:
        return Quote(base, price.version)
    surcharge = surcharge_of(base, permille_of(table, priority))
    return Quote(base + surcharge, price.version, surcharge, table.version)


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
