"""Which tariff a meter of a lease is priced by, and what its count costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gridlease_billing.domain.carbon import SitePower, footprint
from gridlease_billing.domain.invoice import moment
from gridlease_billing.domain.rating import Tariff, price_of

LEAST_METER = "run_minimum"  # the line of what a lease is short of the least that one costs


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the book of tariffs. ``site`` "" = wherever a site has none of its own.

    ``pass_through``: energy at the site's own price by the hour.
    """

    version: int
    meter: str
    site: str
    tariff: Tariff
    pass_through: bool
    effective_ms: int
    recorded_ms: int


@dataclass(frozen=True, slots=True)
class Priced:
    """A segment's count on one meter, and what it costs. ``month``: by whose total it is priced,
    0 = by none; ``before``: that total without it."""

    lease: str
    segment: int
    meter: str
    version: int
    count: int
    amount_nano: int
    month: int = 0
    before: int = 0


def tariff_of(entries: Iterable[Entry], meter: str, site: str, now_ms: int) -> Entry | None:
    """In force at ``now_ms``: the site's own, or else that of all sites."""
    begun = [it for it in entries if it.meter == meter and it.effective_ms <= now_ms]
    for where in (site, ""):
        own = [it for it in begun if it.site == where]
        if own:
            return max(own, key=lambda it: (it.effective_ms, it.version))
    return None


def month_of(now_ms: int) -> int:
    """A month's number, UTC: tiers are counted in it.

    >>> month_of(0)
    23640
    """
    at = moment(now_ms)
    return at.year * 12 + at.month - 1


def cost(tariff: Tariff, total: int) -> int:
    """Of a month's total; its minimum comes with the first that is used."""
    return max(tariff.minimum_nano, price_of(tariff, total)) if total else 0


def grown(tariff: Tariff, before: int, count: int) -> int:
    """What ``count`` adds to a total; slices sum to the cost of the whole."""
    return cost(tariff, before + count) - cost(tariff, before)


@dataclass(frozen=True, slots=True)
class Shown:
    """What ``grown`` is made of: units that were free, and money by the steps and by the minimum.

    ``minimum_nano`` is below zero where the steps catch up with a minimum that was charged before.
    """

    free: int
    stepped_nano: int
    minimum_nano: int


def shown(tariff: Tariff, before: int, count: int) -> Shown:
    """The parts of ``grown(tariff, before, count)``: each of totals, so that slices sum up."""
    stepped = price_of(tariff, before + count) - price_of(tariff, before)
    first, *later = tariff.steps
    free = 0
    if first.price_nano == 0 and later:
        free = max(0, min(before + count, later[0].above) - before)
    return Shown(free, stepped, grown(tariff, before, count) - stepped)


def passed_on(count_mj: int, starts_ms: int, ends_ms: int, power: SitePower | None) -> int:
    """What energy cost the site, by its own prices; 0 where they are not known."""
    if power is None:
        return 0
    span_ms = max(0, ends_ms - starts_ms)
    return footprint(count_mj, starts_ms, span_ms, power).energy_nano or 0
