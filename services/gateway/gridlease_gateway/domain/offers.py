"""What is on offer, and the cheapest that a request would take."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TIERS = (1, 2, 3)  # reserved, on-demand, spot: numbers of the wire's Tier
ON_DEMAND = 2
DEFAULT_CPU_MILLI = 1_000
_CPU_PREFIX = "cpu-"


@dataclass(frozen=True, slots=True)
class Stock:
    """A chip at a site; amounts in thousandths of a device or core."""

    chip: str
    site: str
    total_milli: int
    free_milli: int
    memory_bytes: int
    emulated: bool


@dataclass(frozen=True, slots=True)
class PriceTag:
    """An hourly price in force. ``site`` "" = wherever a site has none of its own."""

    chip: str
    tier: int
    price_nano_per_hour: int
    currency: str
    site: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """A chip at a site with its price; no price = not for sale."""

    stock: Stock
    price: PriceTag


@dataclass(frozen=True, slots=True)
class Ask:
    """What decides the price of a request; no chips and no accelerator = CPUs alone."""

    chips: tuple[str, ...]
    accelerator: bool
    memory_low_bytes: int
    memory_high_bytes: int  # 0 = no upper end
    quantity_milli: int
    tier: int


def on_offer(stock: Iterable[Stock], prices: Iterable[PriceTag], chip: str = "") -> list[Offer]:
    """Each stock at each price that it has, by chip, site and tier; only ``chip`` if named."""
    by_chip: dict[str, list[PriceTag]] = {}
    for price in prices:
        by_chip.setdefault(price.chip, []).append(price)
    found = [
        Offer(item, price)
        for item in stock
        if not chip or _named(item.chip, chip)
        for price in _at(item.site, by_chip.get(item.chip, []))
    ]
    return sorted(found, key=lambda it: (it.stock.chip, it.stock.site, it.price.tier))


def candidates(
    ask: Ask, stock: Sequence[Stock], prices: Sequence[PriceTag]
) -> list[tuple[int, str, str]]:
    """(price, chip, site) that the request could take, cheapest first.

    From what real nodes have, else what emulated ones have, else the price book: a chip that
    nobody has still has a price, and the tenant may want to know it.
    """
    stocked = [it for it in stock if _fits(ask, it)]
    real = {(it.chip, it.site) for it in stocked if not it.emulated}
    emulated = {(it.chip, it.site) for it in stocked if it.emulated}
    at_tier = [it for it in prices if it.tier == ask.tier]
    listed = {(it.chip, it.site) for it in at_tier if _sold(ask, it.chip)}
    for places in (real, emulated, listed):
        fitting = [
            (price.price_nano_per_hour, chip, site)
            for chip, site in places
            for price in _at(site, [it for it in at_tier if it.chip == chip])
        ]
        if fitting:
            return sorted(fitting)
    return []


def _at(site: str, prices: Iterable[PriceTag]) -> list[PriceTag]:
    """Of one chip's prices, those at a site: its own before those of everywhere."""
    found: dict[int, PriceTag] = {}
    for price in sorted(prices, key=lambda it: it.site):  # "" comes first
        if price.site in ("", site):
            found[price.tier] = price
    return list(found.values())


def with_default_tier(ask: Ask) -> Ask:
    """A request that names no tier is bought on demand."""
    return ask if ask.tier in TIERS else dataclasses.replace(ask, tier=ON_DEMAND)


def _fits(ask: Ask, item: Stock) -> bool:
    if not _sold(ask, item.chip):
        return False
    if not ask.accelerator:
        return True
    high = ask.memory_high_bytes or item.memory_bytes
    return ask.memory_low_bytes <= item.memory_bytes <= high


def _sold(ask: Ask, chip: str) -> bool:
    if not ask.accelerator:
        return chip.startswith(_CPU_PREFIX)
    if chip.startswith(_CPU_PREFIX):
        return False
    return not ask.chips or any(_named(chip, name) for name in ask.chips)


def _named(chip: str, name: str) -> bool:
    """Whether ``name`` means ``chip``: its own name, or its family's."""
    have, want = chip.casefold(), name.casefold()
    return have == want or have.startswith(f"{want}-")
