"""The spot price's rule: where does one window of use move it?

A posted price that follows how full the chip is at a site, a small step a window, between a floor
and the on-demand price. It never ends a lease: what runs keeps its rate where the new one is above
what its job accepts (``settlement``).

    full = (used + waiting) of all there is, per mille
    full above target + band: up;  below target - band: down;  between: as it is.
    The step grows with the distance from the band and is a whole one at ``_WHOLE_PERMILLE``.
    floor = what an hour at full load costs in power there, and wear.

Source: posted price from utilisation, 2 % per 5 minutes, target 0.9, against auctions: a fifth of
their volatility and a third of their interruptions in a simulation; docs/policies.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from gridlease_billing.domain.carbon import SitePower

_WHOLE_PERMILLE = 100  # so far beyond the band, and the step is a whole one
_MILLION = 1_000_000
_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class SpotPolicy:
    """``floor_permille``: of the on-demand price: energy and wear, where power's price is not
    known. ``wear_permille``: wear alone, where it is. ``step_permille``: of the price, at most, in
    a window of ``window_ms``. ``fixed``: chips whose price an operator sets by hand; ``*`` =
    every chip."""

    floor_permille: int = 200
    wear_permille: int = 50
    target_permille: int = 900
    band_permille: int = 50
    step_permille: int = 20
    window_ms: int = 300_000
    fixed: frozenset[str] = frozenset()

    def window(self, end_ms: int) -> int:
        """The number of the window that ends then, or in which that instant lies."""
        return end_ms // self.window_ms

    @property
    def apart_ms(self) -> int:
        """Between two moves: nine tenths of a window, as a report may be late by the rest."""
        return self.window_ms * 9 // 10

    def moves(self, chip: str) -> bool:
        """Whether the chip's price is the rule's to move."""
        return not self.fixed & {chip, "*"}


@dataclass(frozen=True, slots=True)
class ChipUse:
    """How full one chip is at a site, in thousandths of its priced unit.

    ``watts``: of one at full load; 0 = not known. ``power``: the site's; None = not known.
    """

    chip: str
    total_milli: int
    used_milli: int
    waiting_milli: int
    site: str = ""
    watts: int = 0
    power: SitePower | None = None

    @property
    def place(self) -> tuple[str, str]:
        """The chip and the site: what has a spot price of its own."""
        return self.chip, self.site

    @property
    def full_permille(self) -> int:
        """Used and wanted of all there is, rounded down; above 1,000: more is wanted."""
        assert self.total_milli > 0, self
        return (self.used_milli + self.waiting_milli) * 1_000 // self.total_milli


@dataclass(frozen=True, slots=True)
class LastMove:
    """When a chip's spot price moved last, and in which window."""

    window: int
    moved_ms: int


def due(last: LastMove | None, end_ms: int, now_ms: int, policy: SpotPolicy) -> bool:
    """May a report of the window that ended at ``end_ms`` move the price now? Once a window, and
    not for a window that is over and done with."""
    window = policy.window(end_ms)
    if window < policy.window(now_ms) - 1:
        return False
    return last is None or (window > last.window and now_ms - last.moved_ms >= policy.apart_ms)


def floor_nano(on_demand_nano: int, use: ChipUse, policy: SpotPolicy, now_ms: int) -> int:
    """The least that a chip is rented out for at a site: marginal energy and wear, never above the
    on-demand price.

    Energy: watts x PUE x the site's price of a kilowatt-hour in this hour (UTC), rounded up.
    """
    power = use.power
    if not use.watts or power is None or not power.price_nano_per_kwh:
        return on_demand_nano * policy.floor_permille // 1_000
    by_hour = power.price_nano_per_kwh
    kwh_nano = by_hour[now_ms // _HOUR_MS % len(by_hour)]
    energy = -(-use.watts * power.pue_milli * kwh_nano // _MILLION)
    return min(on_demand_nano, energy + on_demand_nano * policy.wear_permille // 1_000)


def moved(
    price_nano: int,
    on_demand_nano: int,
    use: ChipUse,
    policy: SpotPolicy,
    floor_nano: int | None = None,
) -> int | None:
    """The chip's next spot price, in nano-units an hour; None: it stays.

    A step is rounded down, but is 1 nano at least. A price that a hand has set outside floor and
    cap goes back by whole steps, however full the chip is. A price of 0 is a gift, and stays one;
    so does the price of a chip of which there is none. ``floor_nano`` None = the policy's share of
    the on-demand price.
    """
    if not use.total_milli or not price_nano:
        return None
    if floor_nano is None:
        floor_nano = on_demand_nano * policy.floor_permille // 1_000
    if price_nano > on_demand_nano:
        found = max(on_demand_nano, price_nano - _step(price_nano, _WHOLE_PERMILLE, policy))
    elif price_nano < floor_nano:
        found = min(floor_nano, price_nano + _step(price_nano, _WHOLE_PERMILLE, policy))
    else:
        off = use.full_permille - policy.target_permille
        beyond = abs(off) - policy.band_permille
        step = _step(price_nano, beyond, policy) if beyond > 0 else 0
        found = price_nano + (step if off > 0 else -step)
        found = min(max(found, floor_nano), on_demand_nano)
    return None if found == price_nano else found


def _step(price_nano: int, beyond_permille: int, policy: SpotPolicy) -> int:
    share = min(beyond_permille, _WHOLE_PERMILLE)
    whole = _MILLION * policy.step_permille // 1_000  # per million of the price
    return max(1, price_nano * (whole * share // _WHOLE_PERMILLE) // _MILLION)
